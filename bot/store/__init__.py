"""What is remembered about people between restarts: their choices and their match history."""
