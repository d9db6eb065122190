"""What the SQL clients of the stack have in common: how statements come in, and how their answers go out.

Statements are separated by `;` and may be given as arguments; without arguments they are read from standard input, where a
line holds whole statements and is answered before the next one is read, so that a test can keep one session open. Every
statement is answered by one line of JSON, in order:

    {"sql": …, "columns": [[name, type], …], "rows": [[…], …], "seconds": …}    or    {"sql": …, "error": …, "seconds": …}

Decimals are strings in plain notation, dates `2024-07-01`, timestamps `2024-07-01T13:00:00.000000` in UTC, binary values
base64, structs objects, maps lists of pairs. The exit code is 1 if a statement failed.
"""

import base64
import datetime
import decimal
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import Callable, Iterable, Iterator

STACK = Path(__file__).resolve().parent


def setting(name: str) -> str:
    """What `stack env` has set."""
    value = os.environ.get(name)
    if not value:
        sys.exit(f"error: {name} is not set\n hint: eval \"$({STACK / 'stack'} env)\", after `stack up --with` the engine")
    return value


# Quoted text, comments, and everything else character by character.
TOKEN = re.compile(r"""'(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | `[^`]*` | --[^\n]* | /\*.*?\*/ | .""", re.DOTALL | re.VERBOSE)


def statements(text: str) -> Iterator[str]:
    """Splits at semicolons outside quotes and comments; drops comments, but not hints."""
    statement = ""
    for token in [*TOKEN.findall(text), ";"]:
        if token == ";":
            if statement.strip():
                yield statement.strip()
            statement = ""
        elif not token.startswith(("--", "/*")) or token.startswith("/*+"):
            statement += token


def plain(value):
    """A value as JSON can hold it."""
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        utc = value.astimezone(datetime.timezone.utc).replace(tzinfo=None) if value.tzinfo else value
        return utc.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return [[plain(key), plain(item)] for key, item in value.items()]
    if hasattr(value, "asDict"):
        return {name: plain(item) for name, item in zip(value.__fields__, value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def become(python: str, script: str, arguments: list[str]) -> None:
    """Goes on with the interpreter that has the client's packages."""
    interpreter = Path(setting(python))
    if Path(sys.prefix) != interpreter.parent.parent:
        os.execv(interpreter, [str(interpreter), script, *arguments])
    # Python's datetime values are in the process's zone.
    os.environ["TZ"] = "UTC"
    time.tzset()


# Runs a statement: its columns with their types, and its rows.
Execute = Callable[[str], tuple[list[list[str]], Iterable]]


def answer(execute: Execute, sql: str) -> dict:
    started = time.monotonic()
    try:
        columns, rows = execute(sql)
        result = {"sql": sql, "columns": columns, "rows": [[plain(value) for value in row] for row in rows]}
    except Exception as error:
        # Some go on for pages with the plan and the JVM's stack; the first part says what is wrong.
        result = {"sql": sql, "error": str(error).split("\n\nJVM stacktrace")[0].strip()}
    return {**result, "seconds": round(time.monotonic() - started, 3)}


def serve(execute: Execute, texts: list[str], answers) -> int:
    """Answers the statements; returns the exit code."""
    failed = False
    for text in texts or sys.stdin:
        for sql in statements(text):
            result = answer(execute, sql)
            failed = failed or "error" in result
            print(json.dumps(result, ensure_ascii=False), file=answers, flush=True)
    return 1 if failed else 0
