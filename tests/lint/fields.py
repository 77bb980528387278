#!/usr/bin/env python3
"""fields.py ROOT - every member of a struct with a field table is named in that table.

src/base/field.h: what is state is saved, what is not is named by FIELD_NONE. A member that is in
neither has been forgotten. Prints TAP: one point per struct.
"""

import pathlib
import re
import sys

COMMENT = re.compile(r"/\*.*?\*/", re.S)
STRUCT = re.compile(r"^struct (\w+) \{(?:\s*$|\n)(.*?)^\}", re.S | re.M)
ENTRY = re.compile(r"\bFIELD(?:_[A-Z0-9]+)?\(\s*struct (\w+),\s*([\w.]+)")
RAW = re.compile(r"\.offset = offsetof\(struct (\w+), ([\w.]+)\)")
TABLE = re.compile(r"\bFIELD_TABLE\(\s*struct (\w+),")


def without_nested(body):
    """The text with the inside of braces and of parameter lists cut out."""
    depth, out = 0, []
    for c in body:
        if c == "}":
            depth -= 1
        if depth == 0:
            out.append(c)
        if c == "{":
            depth += 1
    return "".join(out)


def members(body):
    """The names that a struct's declarations declare."""
    for decl in without_nested(body).split(";"):
        decl = re.sub(r"__attribute__\(\(.*?\)\)|\[[^\]]*\]", "", decl).strip()
        if not decl:
            continue
        function = re.search(r"\(\*\s*(?:const )?(\w+)\)", decl)
        if function:
            yield function[1]
            continue
        for part in decl.split(","):
            yield re.search(r"(\w+)\s*$", part)[1]


def declared(found, path):
    """The members of the struct of this name that a table in `path` is of."""
    own = [body for where, body in found if where == path]
    shared = [body for where, body in found if where.suffix == ".h"]
    bodies = own or shared
    return set(members(bodies[0])) if bodies else {"(the struct is not found)"}


def main():
    src = pathlib.Path(sys.argv[1]) / "src"
    structs, tables, named = {}, {}, {}
    for path in sorted(src.rglob("*.[ch]")):
        text = COMMENT.sub("", path.read_text(encoding="utf-8"))
        for name, body in STRUCT.findall(text):
            structs.setdefault(name, []).append((path, body))
        if path.name == "field.h":
            continue
        for name in TABLE.findall(text):
            tables[name] = path
        for name, member in ENTRY.findall(text) + RAW.findall(text):
            named.setdefault(name, set()).add(member.split(".")[0])
    print(f"1..{len(tables)}")
    for n, (name, path) in enumerate(sorted(tables.items()), 1):
        forgotten = declared(structs.get(name, []), path) - named.get(name, set())
        print(f"{'not ok' if forgotten else 'ok'} {n} - the field table of struct {name} is complete")
        for member in sorted(forgotten):
            print(f"# {path.relative_to(src.parent)}: {member} is neither a field nor FIELD_NONE")
    return 0


sys.exit(main())
