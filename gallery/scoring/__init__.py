"""How cosines become scores; the door is gallery/calibration.py."""
