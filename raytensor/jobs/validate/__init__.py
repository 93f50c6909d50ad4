"""The `validate` job: validators of many subnets with many hotkeys, on one pool of scorers and one chain writer.

job    from the command line to the end
stack  what it works with: keys by reference, actors, text, subnets
watch  whether weights are in time, by what the chain says; alarms
view   the terminal
"""
