"""A gallery in one file, and the old web app's pickles; the door is gallery/pack.py."""
