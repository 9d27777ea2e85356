"""What Kafka accepts as the name of a topic: the rule for settings and for arguments."""

from typing import Final

TOPIC_NAME: Final = r"[a-zA-Z0-9._-]{1,249}"
