"""The scripted answers in the cassettes of the examples: texts, pauses and token counts, by the name of the example.

A script is a list of replies in order. For tasks that run concurrently it is a function from the request to its reply.
"""

from collections.abc import Mapping

from tests.messages_server import Block, Reply, Request, Script, http_error, text, thinking, tool_use

GAP_S = 0.03


def answer(*blocks: Block | str, given: int, made: int, first_gap_s: float = 0.2, gap_s: float = GAP_S) -> Reply:
    """Return an answer that ends the turn, or asks for a tool if its last block is a tool call.

    Its usage has these token counts.
    """
    whole = [text(block, pieces=12) if isinstance(block, str) else block for block in blocks]
    stop_reason = "tool_use" if whole[-1].whole["type"] == "tool_use" else "end_turn"
    usage = {"input_tokens": given, "output_tokens": made}
    return Reply(whole, stop_reason=stop_reason, first_gap_s=first_gap_s, gap_s=gap_s, usage=usage)


NUMBERS = [answer(text("1\n2\n3\n4\n5\n6\n7\n8\n9\n10", pieces=3), given=28, made=29, first_gap_s=0.18)]

FILE_OPERATIONS = [
    answer(
        thinking("Four operations on one file; Write first."),
        text("I'll write test_file.txt with the two lines.", pieces=12),
        tool_use("Write", {"file_path": "test_file.txt", "content": "alpha\nbeta\n"}, pieces=16),
        given=1154,
        made=121,
        first_gap_s=0.25,
    ),
    answer(
        text("Now I'll read it back.", pieces=10),
        tool_use("Read", {"file_path": "test_file.txt"}, pieces=12),
        given=1302,
        made=68,
    ),
    answer(
        'Both lines are there. I\'ll change "beta" to "gamma".',
        tool_use("Edit", {"file_path": "test_file.txt", "old_string": "beta", "new_string": "gamma"}, pieces=16),
        given=1389,
        made=112,
    ),
    answer(
        text("Finally I'll count the lines.", pieces=10),
        tool_use("Bash", {"command": "wc -l test_file.txt"}, pieces=12),
        given=1525,
        made=71,
    ),
    answer(
        text('I wrote test_file.txt, read it, changed "beta" to "gamma", and it has 2 lines.', pieces=10),
        given=1618,
        made=33,
    ),
]

SLUG = '''\
import re


def slug(title: str) -> str:
    """The title in lower case, its words joined by single hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))
'''

TEST_SLUG = """\
from slug import slug

assert slug("Hello, World!") == "hello-world"
assert slug("  two   spaces ") == "two-spaces"
assert slug("--") == ""
print("ok")
"""

DEVELOPMENT = [
    answer(
        thinking("One function with a regular expression; then a test next to it.", pieces=14),
        "I'll begin with the function.",
        tool_use("Write", {"file_path": "slug.py", "content": SLUG}, pieces=24),
        given=1046,
        made=148,
        first_gap_s=0.3,
    ),
    answer(
        "Now a test, with the cases that usually go wrong: punctuation, runs of spaces, nothing left.",
        tool_use("Write", {"file_path": "test_slug.py", "content": TEST_SLUG}, pieces=24),
        given=1231,
        made=167,
    ),
    answer("Let me run it.", tool_use("Bash", {"command": "python3 test_slug.py"}, pieces=12), given=1437, made=62),
    answer(
        "slug.py holds slug(title), and test_slug.py passes. Letters with accents are dropped, not transliterated: say if "
        "titles in other languages matter to you.",
        given=1528,
        made=44,
    ),
]

PRODUCTION = [
    answer(
        thinking("Worn, three weeks, faulty: the second rule holds, packaging is not needed.", pieces=16),
        "Dear Mara, I am sorry about the zip. A fault is covered for 24 months, so you can send the jacket back without its box "
        "and we will repair or replace it within 10 working days. You will get a prepaid label for order 10482 today.",
        given=213,
        made=87,
        first_gap_s=0.4,
    )
]

SESSION = [
    answer(
        "1. again: short, and says what it does.\n"
        "2. persevere: it goes on where others give up.\n"
        "3. secondwind: friendly, and still free on the index.",
        given=41,
        made=52,
        first_gap_s=0.15,
    ),
    answer(
        "persevere sends a failed HTTP request again, after a pause that grows, until it goes well or you say enough.",
        given=124,
        made=31,
        first_gap_s=0.15,
    ),
]

BATCH: Mapping[str, Reply] = {
    "Boils a litre": answer("Positive: it is fast and would be bought again, in spite of the lid.", given=71, made=21),
    "Nice light": answer("Mixed: the lamp is liked, but it flickers and nobody helps.", given=69, made=19, first_gap_s=0.1),
    "The seat cracked": answer("Negative: the chair broke on the first day.", given=64, made=15, gap_s=0.01),
    "Arrived.": answer("Mixed: nothing has been tried yet, so there is nothing to judge.", given=58, made=18, gap_s=0.01),
}

EXTRACT = [
    answer(
        "# Version 2.1\n\n## New\n\n- `export` takes `--since`, to leave out what is older.\n- A cassette may be gzipped.\n\n"
        "## Fixed\n\n- Times are shown in local time, not in UTC.\n- A log that is read-only can be read.\n",
        given=92,
        made=71,
    ),
    answer(
        "Exports can be limited by date, and cassettes may be gzipped. Times are local now. A read-only log can be read.",
        given=318,
        made=29,
    ),
]

ROBUST = [
    http_error(529),
    answer(
        "A client that was turned away waits before it asks again, and doubles the wait each time. So a server that is too busy "
        "gets rest when it needs it, instead of more requests.",
        given=19,
        made=43,
    ),
]

PARALLEL: Mapping[str, Reply] = {
    "How may this query become slow": answer(
        "Without an index on status and created_at it reads and sorts the whole table. An index on (status, created_at) gives "
        "the rows in order. Selecting only the columns you need keeps rows small.",
        given=58,
        made=52,
        gap_s=0.04,
    ),
    "What can go wrong": answer(
        "It returns every open order at once, however many there are. A column added later changes what the program gets. Ties "
        "in created_at come in any order, so paging over it would skip rows.",
        given=56,
        made=49,
        first_gap_s=0.3,
    ),
    "Two reviewers": answer(
        "First limit it: name the columns, order by created_at and id, and page through the rows.", given=163, made=24
    ),
}

CALLBACK = [answer("Line after line falls,\nnothing written is unsaid:\nthe disk remembers.", given=16, made=22)]

BUFFER = [
    answer("I'll look.", tool_use("Glob", {"pattern": "*.py"}, pieces=8), given=412, made=58),
    answer("There are no Python files in this folder.", given=489, made=13),
]

SEVERAL = [answer("That what was written once stays as it was, and everything newer stands behind it.", given=19, made=21)]

TICKETS: Mapping[str, Reply] = {
    "A user of": answer('```json\n{"severity": "high", "topic": "empty exports"}\n```', given=72, made=24, first_gap_s=0.15),
    "Write one line": answer(
        "Tidemark: exports have been empty since this morning, and a customer's report is due at noon.", given=31, made=22
    ),
}


LEAP = 'year = 2100\nprint(f"{year}: {year % 4 == 0 and year % 100 != 0 or year % 400 == 0}")\n'


def claude_code(request: Request) -> Reply:
    """Return the answer to a request of Claude Code. Its requests have reminders beside the prompts."""
    asked = str(request.json["messages"])
    if "which year divisible by 100" in asked:
        return answer("2400: it is divisible by 400.", given=1290, made=12, first_gap_s=0.1)
    if "why is 2100" in asked:
        return answer("A year divisible by 100 is a leap year only if it is divisible by 400, too.", given=1204, made=24)
    results = asked.count("'tool_result'")
    if results == 0:
        use = tool_use("Write", {"file_path": "leap.py", "content": LEAP}, pieces=20)
        return answer("I'll write the file.", use, given=1311, made=96, first_gap_s=0.15)
    if results == 1:
        use = tool_use("Bash", {"command": "python3 leap.py", "description": "Run leap.py"}, pieces=20)
        return answer("Now I'll run it.", use, given=1442, made=61)
    return answer("leap.py prints `2100: False`: 2100 is not a leap year.", given=1530, made=21)


def by_beginning(replies: Mapping[str, Reply]) -> Script:
    """Return the reply with a key that is part of the prompt, because concurrent tasks ask in any order."""

    def script(request: Request) -> Reply:
        asked = str(request.json["messages"][-1]["content"])
        return next(reply for words, reply in replies.items() if words in asked)

    return script


REPLIES: Mapping[str, Script | Mapping[str, Reply]] = {
    "claude_code_steps": claude_code,
    "clean_streaming_numbers": NUMBERS,
    "streaming_file_operations": FILE_OPERATIONS,
    "development_pipeline": DEVELOPMENT,
    "production_pipeline": PRODUCTION,
    "session_conversation": SESSION,
    "batch_reviews": BATCH,
    "extract_structured": EXTRACT,
    "robust_retries": ROBUST,
    "parallel_reviews": PARALLEL,
    "callback_messages": CALLBACK,
    "buffer_messages": BUFFER,
    "several_handlers": SEVERAL,
    "conditions_and_variables": TICKETS,
}


def script_of(name: str) -> Script:
    """Return the server's script for recording the example of that name."""
    replies = REPLIES[name]
    return by_beginning(replies) if isinstance(replies, Mapping) else replies
