"""What a person sees of a run: events, folder, live view, summary, report, tracker. Imports nothing, so that the live
view is on the screen before anything heavy is loaded."""
