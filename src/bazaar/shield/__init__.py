"""Keeps floods out: an XDP program at the front door, its settings, its eyes.

The order of the work: `settings` (what is asked for) → `door` (the program) → `guard`
(attached, watched, adopted again) with `addresses`, `ports` and `devices` below them;
`generator`, `opponents` and `measure` make the flood that proves it.
"""
