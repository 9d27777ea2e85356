"""What delivering.py is made of: the events, the receiver, who delivers, and how one delivery is measured.

A sender is a program of its own that reads a topic and posts to a URL, told by the environment variables DELIVER_…
"""
