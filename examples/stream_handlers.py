"""The callback of callback_messages.yaml: told of one message at a time, in order, while the run goes on."""

import retold


def process_message(message: retold.Message) -> None:
    """Print how many words a message brought; what it raises is reported at the end and does not stop the run."""
    words = sum(len(block["text"].split()) for block in message.blocks if block["type"] == "text")
    print(f"{message.step}: {message.type} message with {words} words")
