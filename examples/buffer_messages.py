"""Run a workflow from a program and print the messages, the tokens and the answer of its result.

python examples/buffer_messages.py         offline, from the cassette
python examples/buffer_messages.py live    against the API, with a recording
"""

import sys
from pathlib import Path

import retold

WORKFLOW = Path(__file__).with_name("buffer_messages.yaml")


def main() -> None:
    """Print one line per message, then the answer."""
    result = retold.run_workflow(WORKFLOW, mode="live" if "live" in sys.argv[1:] else "mock")
    step = result.step("read")
    (buffer,) = step.handler_results
    for message in buffer["buffered"]:
        kinds = [block["type"] for block in message["message"].get("message", {}).get("content", [])]
        print(f"{message['t_ms']:8.1f} ms  {message['type']:<9}  {', '.join(kinds) or message['subtype']}")
    print(f"{buffer['messages']} messages, {buffer['dropped']} dropped; {step.usage['output_tokens']} tokens out")
    print(step.text)


if __name__ == "__main__":
    main()
