"""The `validate` job: validators of many subnets with many hotkeys, on one pool of scorers and one chain writer.

job       from the command line to the end: what is started, the loop, what Ctrl-C ends
parts     keys, actors, text, subnets: everything that stands behind the operator
handover  weights to the chain's writer, and what it says of them; never waited for
watch     are weights in time, judged by the chain alone; alarms
view      the terminal
"""
