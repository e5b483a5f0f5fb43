"""Where people and portraits come from; what a source yields is ``gallery.records.FoundPortrait``.

A source yields pictures in any order; the same person may come again and again, known by their
key. Screening, thumbnails and vectors are the same for every source (gallery/add.py).
"""
