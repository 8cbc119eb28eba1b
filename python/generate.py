"""Writes what the module shares with the command line: options, reports and signatures.

    python generate.py BINARY            writes the files
    python generate.py BINARY --check    exits with 1 and names the files that are not up to date

Options come from `msq-onnx config --defaults COMMAND`, reports from `msq-onnx schema COMMAND`. Three files of
`src/msq_onnx` are written: `_options.py`, `_reports.py` and `__init__.pyi`, in which editors and type checkers find
every option as a parameter. Needs nothing but the standard library.
"""

from __future__ import annotations

import ast
import inspect
import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent / "src" / "msq_onnx"
COMMANDS = ("quantize", "search", "evaluate", "compare")
#: Keys that the module sets itself, that are parameters of their own, or with which a command writes no report.
OWN_KEYS = {"input", "output", "calib", "json", "quiet", "reference", "metric-command", "shard", "progress"}
#: Functions whose options are those of a command of another name.
OPTIONS_OF = {"calibrate": "quantize", "measure": "search"}
#: Documents and the classes they become.
DOCUMENTS = {
    "quantize": "Report",
    "search": "SearchReport",
    "evaluate": "EvaluateReport",
    "compare": "CompareReport",
    "inspect": "InspectReport",
    "lint": "LintReport",
}
#: Definitions whose names say too little outside of Rust, or are taken.
RENAMED = {
    "Outcome": "SearchOutcome",
    "Quarter": "QuarterMetrics",
    "Step": "SearchStep",
    "ValueError": "InnerValueError",
}
WARNING = "# Written by generate.py from what the binary prints; not to be edited.\n"
WIDTH = 116


class Option(NamedTuple):
    """An option of a command.

    `kind` is `flag`, `count`, `integer`, `number`, `text`, `path`, `size` or `bits`; `many` says whether it takes a
    list; `choices` are all its values, if these are few.
    """

    kind: str
    many: bool
    choices: tuple[str, ...]


def output_of(binary: str, *arguments: str) -> str:
    """What the binary prints."""
    return subprocess.run([binary, *arguments], check=True, capture_output=True, encoding="utf-8").stdout


def options_of(binary: str, command: str) -> dict[str, Option]:
    """The options of a command in their order, from its file of options."""
    arguments = [] if command == "quantize" else [command]
    found = {}
    comment = ""
    for line in output_of(binary, "config", "--defaults", *arguments).splitlines():
        key = re.fullmatch(r"#([a-z-]+) = (.+)", line)
        if key and key[1] not in OWN_KEYS:
            found[key[1]] = option(key[1], key[2], comment)
        comment = line.removeprefix("# ")
    return found


def option(key: str, value: str, help_text: str) -> Option:
    """An option by its line in the file of options and the comment above."""
    many = value.startswith("[")
    choices = re.search(r": ((?:[a-z0-9-]+, )+[a-z0-9-]+)$", help_text)
    placeholder = value.strip('[]"')
    if value in ("true", "false"):
        kind = "flag"
    elif key == "verbose":
        kind = "count"
    elif placeholder in ("PATH", "DIR", "MODEL"):
        kind = "path"
    elif placeholder in ("BITS", "LIST", "activations") and not choices:
        kind = "bits"
    elif placeholder in ("SIZE", "P%"):
        kind = "size"
    elif placeholder in ("F", "A,B,C"):
        kind = "number"
    elif placeholder == "N" or re.fullmatch(r"[\d,]+", placeholder):
        kind = "integer"
    else:
        kind = "text"
    return Option(kind, many, tuple(choices[1].split(", ")) if choices and kind == "text" else ())


def options_module(options: dict[str, dict[str, Option]]) -> str:
    """The text of `_options.py`."""
    lines = [
        '"""The options of each command: names, types and choices."""\n\n' + WARNING,
        "from __future__ import annotations\n",
        "from typing import NamedTuple\n\n",
        "class Option(NamedTuple):",
        # Versions of Python differ in the indentation that docstrings keep.
        textwrap.indent(f'"""{inspect.cleandoc(Option.__doc__ or "")}\n"""\n', "    "),
        "    kind: str",
        "    many: bool",
        "    choices: tuple[str, ...]\n\n",
        "#: By command and by key, the long name of the flag.",
        "OPTIONS: dict[str, dict[str, Option]] = {",
    ]
    for command, found in options.items():
        lines.append(f'    "{command}": {{')
        lines += [f"        {quoted(key)}: {literal(each)}," for key, each in found.items()]
        lines.append("    },")
    return "\n".join([*lines, "}\n"])


def literal(each: Option) -> str:
    """An option as Python text."""
    choices = ", ".join(map(quoted, each.choices)) + ("," if len(each.choices) == 1 else "")
    return f"Option({quoted(each.kind)}, {each.many}, ({choices}))"


def quoted(text: str) -> str:
    """A string literal in double quotes."""
    return json.dumps(text, ensure_ascii=False)


# Reports


class Reports:
    """The classes of all documents, each definition once."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}
        self.aliases: dict[str, str] = {}
        self.sources: dict[str, Any] = {}

    def add(self, command: str, schema: dict[str, Any]) -> None:
        """Adds a document and what it refers to."""
        definitions = schema.get("$defs", {})
        for name, definition in definitions.items():
            if self.sources.setdefault(name, definition) != definition:
                raise SystemExit(f"error: the schemas define `{name}` in two ways")
            if "properties" in definition:
                self.classes[name] = self.dataclass(python_name(name), definition, "")
            else:
                self.aliases[name] = self.type_of(definition)
        title = DOCUMENTS[command]
        self.classes[title] = self.dataclass(title, schema, "Document")

    def type_of(self, schema: dict[str, Any]) -> str:
        """The Python type of what a schema describes."""
        if "$ref" in schema:
            return python_name(schema["$ref"].rsplit("/", 1)[1])
        if "const" in schema:
            return f"Literal[{quoted(schema['const'])}]"
        if "enum" in schema:
            return f"Literal[{', '.join(quoted(value) if value is not None else 'None' for value in schema['enum'])}]"
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return joined([self.type_of(each) for each in schema[union]])
        types = schema.get("type", [])
        return joined([self.simple(kind, schema) for kind in ([types] if isinstance(types, str) else types)])

    def simple(self, kind: str, schema: dict[str, Any]) -> str:
        """The Python type for a type of JSON."""
        if kind == "array":
            if "prefixItems" in schema:
                return f"tuple[{', '.join(self.type_of(each) for each in schema['prefixItems'])}]"
            item = self.type_of(schema["items"])
            if schema.get("minItems") is not None and schema.get("minItems") == schema.get("maxItems"):
                return f"tuple[{', '.join([item] * schema['minItems'])}]"
            return f"tuple[{item}, ...]"
        if kind == "object":
            values = schema.get("additionalProperties")
            return f"Mapping[str, {self.type_of(values) if isinstance(values, dict) else 'Any'}]"
        return {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}[kind]

    def dataclass(self, name: str, schema: dict[str, Any], base: str) -> str:
        """The text of a class."""
        required = set(schema.get("required", []))
        properties = schema["properties"]
        attributes = [attribute(key) for key in properties]
        lines = ["@dataclass(frozen=True, kw_only=True)", f"class {name}({base}):" if base else f"class {name}:"]
        lines += docstring(schema.get("description", name), properties)
        for key, value in properties.items():
            kind = self.type_of(value)
            # Within a class, the name of a field hides the type of that name.
            for builtin in ("float", "bytes"):
                if builtin in attributes:
                    kind = re.sub(rf"\b(?<!\"){builtin}\b(?!\")", f"builtins.{builtin}", kind)
            renamed = attribute(key) != key
            if key in required:
                default = f' = field(metadata={{"key": "{key}"}})' if renamed else ""
            elif kind.startswith("tuple[") and kind.endswith(", ...]"):
                default = " = ()"
            elif kind.startswith("Mapping["):
                default = " = field(default_factory=dict)"
            else:
                kind = joined([kind, "None"])
                default = f' = field(default=None, metadata={{"key": "{key}"}})' if renamed else " = None"
            lines.append(f"    {attribute(key)}: {kind}{default}")
        return "\n".join(lines)

    def module(self) -> str:
        """The text of `_reports.py`."""
        aliases = [alias(python_name(name), kind) for name, kind in self.aliases.items()]
        return "\n".join(
            [
                '"""What `--json` prints, as frozen dataclasses."""\n\n' + WARNING,
                "from __future__ import annotations\n",
                "import builtins",
                "from collections.abc import Mapping",
                "from dataclasses import dataclass, field",
                "from typing import Literal, TypeAlias\n",
                "from ._document import Document\n",
                "\n".join(aliases),
                "\n\n" + "\n\n\n".join(self.classes.values()) + "\n",
            ]
        )


def alias(name: str, kind: str) -> str:
    """The line of an alias, or lines where it is long."""
    line = f"{name}: TypeAlias = {kind}"
    values = re.fullmatch(r"Literal\[(.*)\]", kind)
    return line if len(line) <= WIDTH or not values else f"{name}: TypeAlias = Literal[\n    {values[1]}\n]"


def python_name(name: str) -> str:
    """The class of a definition."""
    return RENAMED.get(name, name)


def attribute(key: str) -> str:
    """The field of a key."""
    name = key.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


def joined(kinds: list[str]) -> str:
    """A union, None last and once; literals in one."""
    parts: list[str] = []
    for kind in kinds:
        parts += [part for part in split(kind) if part not in parts]
    values = [part.removeprefix("Literal[").removesuffix("]") for part in parts if part.startswith("Literal[")]
    parts = (
        [part for part in parts if part != "None" and not part.startswith("Literal[")]
        + ([f"Literal[{', '.join(values)}]"] if values else [])
        + (["None"] if "None" in parts else [])
    )
    return " | ".join(parts)


def split(kind: str) -> Iterator[str]:
    """The members of a union."""
    depth = start = 0
    for at, sign in enumerate(kind):
        depth += (sign == "[") - (sign == "]")
        if not depth and kind.startswith(" | ", at):
            yield kind[start:at]
            start = at + 3
    yield kind[start:]


def docstring(description: str, properties: dict[str, Any]) -> list[str]:
    """A class's docstring with its fields."""
    lines = ['    """' + wrapped(" ".join(description.split()), "    ", 3)]
    described = {key: value["description"] for key, value in properties.items() if "description" in value}
    if described:
        lines += ["", "    Attributes:"]
        for key, text in described.items():
            lines.append("        " + wrapped(f"{attribute(key)}: {' '.join(text.split())}", " " * 12, -4))
        return [*lines, '    """', ""]
    lines[-1] += '"""'
    return [*lines, ""]


def wrapped(text: str, indent: str, first: int) -> str:
    """Text in lines, the first of which is indented already."""
    lines = textwrap.wrap(text, WIDTH, initial_indent=" " * (len(indent) + first), subsequent_indent=indent)
    return "\n".join(lines).lstrip()


# Signatures

KINDS = {
    "flag": "bool",
    "count": "int",
    "integer": "int",
    "number": "float",
    "text": "str",
    "path": "PathLike",
    "size": "str | float",
    "bits": "str | float",
}


def parameter(key: str, each: Option) -> str:
    """The parameter of an option."""
    kind = f"Literal[{', '.join(map(quoted, each.choices))}]" if each.choices else KINDS[each.kind]
    if key == "plan":
        kind = "PathLike | Mapping[str, Any]"
    elif key == "valid":
        kind = "Data"
    elif key == "labels":
        kind = "PathLike | ArrayLike"
    elif key == "report":
        kind = "PathLike | bool"
    if each.many:
        kind = f"{kind} | Sequence[{kind}]"
    return f"    {key.replace('-', '_')}: {joined([kind, 'None'])} = None,"


def stubs(options: dict[str, dict[str, Option]]) -> str:
    """The text of `__init__.pyi`: the module's own text with each `**options` spelled out."""
    source = (PACKAGE / "_functions.py").read_text(encoding="utf-8")
    functions = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            node.body = [ast.Expr(ast.Constant(...))]
            text = ast.unparse(node).replace("Any=", "Any = ")
            command = OPTIONS_OF.get(node.name, node.name)
            if command in options:
                own = [f"    {ast.unparse(each)}," for each in positional(node)]
                own += ["    *,", *keyword_only(node)]
                own += [parameter(key, each) for key, each in options[command].items()]
                returned = ast.unparse(node.returns or ast.Name("None"))
                text = f"def {node.name}(\n" + "\n".join(own) + f"\n) -> {returned}: ..."
            else:
                text = re.sub(r":\n    \.\.\.$", ": ...", text)
            functions.append(re.sub(r"\b(\w+: [^=\n]+?)=None", r"\1 = None", text))
    exported = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    imports = re.findall(r"^from \._(?:errors|reports|sweep|types) import (?:\([^)]*\)|.+)$", exported, re.MULTILINE)
    names = re.search(r"^__all__ = \[.*?^\]", exported, re.MULTILINE | re.DOTALL)
    return "\n".join(
        [
            WARNING,
            "from collections.abc import Callable, Mapping, Sequence",
            "from pathlib import Path",
            "from typing import Any, Literal\n",
            "from numpy.typing import ArrayLike\n",
            *imports,
            "",
            names[0] if names else "",
            "\n__version__: str\n",
            "\n\n".join(functions) + "\n",
        ]
    )


def positional(node: ast.FunctionDef) -> Iterator[ast.AST]:
    """Positional parameters, with their defaults."""
    arguments = node.args.args
    defaults: list[ast.expr | None] = [None] * (len(arguments) - len(node.args.defaults))
    for argument, default in zip(arguments, [*defaults, *node.args.defaults], strict=True):
        text = ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")
        yield ast.Name(text)


def keyword_only(node: ast.FunctionDef) -> Iterator[str]:
    """Lines of keyword parameters, with their defaults."""
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        yield f"    {ast.unparse(argument)}" + (f" = {ast.unparse(default)}," if default else ",")


def main() -> int:
    """Writes or checks the files."""
    binary, check = sys.argv[1], "--check" in sys.argv[2:]
    options = {command: options_of(binary, command) for command in COMMANDS}
    reports = Reports()
    for command in DOCUMENTS:
        reports.add(command, json.loads(output_of(binary, "schema", command)))
    files = {"_options.py": options_module(options), "_reports.py": reports.module(), "__init__.pyi": stubs(options)}
    stale = False
    for name, text in files.items():
        path = PACKAGE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if check:
            print(f"error: `{path.name}` is not up to date: run `python python/generate.py BINARY`")
        else:
            path.write_text(text, encoding="utf-8")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
