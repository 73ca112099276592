"""The callback of callback_messages.yaml: retold calls it for each message, in order, during the run."""

import retold


def process_message(message: retold.Message) -> None:
    """Print the number of words of a message. If it raises, the run continues and reports the error at the end."""
    words = sum(len(block["text"].split()) for block in message.blocks if block["type"] == "text")
    print(f"{message.step}: {message.type} message with {words} words")
