"""What a person sees of a run: its events, folder, live view, summary, report and tracker.

Nothing is imported here, so that the live view is on the screen before anything heavy is.
"""
