"""What is said: commands, events, replies, subjects and the codec. Frozen data; imports nothing of ours and does no
I/O.
"""
