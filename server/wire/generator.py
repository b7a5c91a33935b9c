"""From the fields of a message to the source of the functions that encode and decode it.

Rules of this file:

* A message is a sequence of runs: fields of fixed size, which are one :class:`struct.Struct`, then
  at most one of variable size, whose 16- or 32-bit count is the last item of the Struct.
* The source is the same whether it is executed when a message is declared, or was compiled when
  the package was built.  It stands behind PREAMBLE, and all messages may share one module.
* Only what a decoder reckons with has a type; all else just passes through it.
* A record is laid out like a message, but stands inside one: before its fields there is size[2],
  which does not count itself.
"""

from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from .primitives import HEADER

#: What comes before the source of the messages.
PREAMBLE = """\
# mypy: allow-untyped-defs, allow-untyped-calls, allow-incomplete-defs
from struct import Struct, error
from typing import Final
from server.wire.primitives import (
    Malformed, Qid, join_strings, pack_qids, split_qids, split_strings
)
"""

#: The functions of a message; only one that ends in data has the last.  A record has the first two.
FUNCTIONS = ("pack", "unpack", "call", "head")

_COUNT = {"string": "H", "strings": "H", "qids": "H", "data": "I"}


@dataclass(frozen=True, slots=True)
class Kind:
    """How a field is laid out: ``code`` its struct code if its size is fixed, else ``shape``."""

    code: str = ""
    shape: str = ""


class Field(NamedTuple):
    """A field of a message."""

    name: str
    kind: Kind

    @property
    def parts(self) -> list[str]:
        """The names of its values in a Struct: three for a qid."""
        if self.kind.code == "BIQ":
            return [f"{self.name}_type", f"{self.name}_version", f"{self.name}_path"]
        return [self.name]


class Run(NamedTuple):
    """Fields of fixed size, then perhaps one of variable size."""

    fixed: list[Field]
    variable: Field | None

    @property
    def codes(self) -> str:
        """The struct codes of the fixed fields and the count."""
        count = _COUNT[self.variable.kind.shape] if self.variable else ""
        return "".join(field.kind.code for field in self.fixed) + count

    @property
    def size(self) -> int:
        """The bytes that they take."""
        return Struct("<" + self.codes).size


def source(name: str, number: int | None, fields: list[Field]) -> str:
    """The functions of one message (see :mod:`.codec`), each named ``function_name``; of a record
    if there is no number.
    """
    runs = _runs(fields)
    lines = []
    first = "H" if number is None else "IBH"
    for i, run in enumerate(runs):
        header = first if i == 0 else ""
        lines.append(f"pack{i}_{name}: Final = Struct('<{header}{run.codes}').pack")
        lines.append(f"unpack{i}_{name}: Final = Struct('<{run.codes}').unpack_from")
    names = [field.name for field in fields]
    body, parts = _encoder(name, number, runs)
    result = parts[0] if len(parts) == 1 else f"b''.join(({', '.join(parts)}))"
    arguments = names if number is None else ["tag", *names]
    lines += _function(f"pack_{name}({', '.join(arguments)})", [*body, f"return {result}"])
    body, values = _decoder(name, runs)
    where = "buffer, at: int, stop: int"
    lines += _function(
        f"unpack_{name}({where})", [*body, f"return ({''.join(f'{value}, ' for value in values)})"]
    )
    if number is None:
        return "\n".join(lines) + "\n"
    lines += _function(
        f"call_{name}({where}, function, client, tag)",
        [*body, f"return function({', '.join(['client', 'tag', *values])})"],
    )
    if fields and fields[-1].kind.shape == "data":  # such a message has one run
        packed = parts[0].replace(f"len({names[-1]})", "count")
        signature = f"head_{name}({', '.join(['tag', *names[:-1], 'count'])})"
        lines += _function(signature, [f"return {packed}"])
    return "\n".join(lines) + "\n"


def _function(signature: str, body: list[str]) -> list[str]:
    return [f"def {signature}:", *(f"    {line}" for line in body)]


def _runs(fields: list[Field]) -> list[Run]:
    runs = []
    fixed: list[Field] = []
    for field in fields:
        if field.kind.code:
            fixed.append(field)
        else:
            runs.append(Run(fixed, field))
            fixed = []
    if fixed or not runs:
        runs.append(Run(fixed, None))
    return runs


def _encoder(name: str, number: int | None, runs: list[Run]) -> tuple[list[str], list[str]]:
    """The statements of an encoder, and the expressions whose values make the frame."""
    body = []
    parts = []
    header = ["{size}"] if number is None else ["{size}", str(number), "tag"]
    size = str((0 if number is None else HEADER.size) + sum(run.size for run in runs))
    for i, run in enumerate(runs):
        values = header if i == 0 else []
        for field in run.fixed:
            values += field.parts
            if len(field.parts) > 1:
                body.append(f"{', '.join(field.parts)} = {field.name}")
        encoded = ""
        if run.variable:
            encoded, kind = run.variable
            values.append(f"len({encoded})")
            if kind.shape in ("strings", "qids"):
                join = "join_strings" if kind.shape == "strings" else "pack_qids"
                body.append(f"joined = {join}({encoded})")
                encoded = "joined"
            size += f" + len({encoded})"
        parts.append(f"pack{i}_{name}({', '.join(values)})")
        if encoded:
            parts.append(encoded)
    parts[0] = parts[0].replace("{size}", size)
    return body, parts


def _decoder(name: str, runs: list[Run]) -> tuple[list[str], list[str]]:
    """The statements of a decoder, and the expressions of the fields' values."""
    body = []
    values = []
    for i, run in enumerate(runs):
        targets = []
        for field in run.fixed:
            targets += field.parts
            qid = len(field.parts) > 1
            values.append(f"Qid({', '.join(field.parts)})" if qid else field.name)
        if run.variable:
            targets.append("count")
        if targets:
            body.append(f"{', '.join(targets)}, = unpack{i}_{name}(buffer, at)")
            body.append(f"at += {run.size}")
        if run.variable:
            target, kind = run.variable
            values.append(target)
            if kind.shape == "string":
                body += [f"{target} = bytes(buffer[at:at + count])", "at += count"]
            elif kind.shape == "data":
                body += [f"{target} = buffer[at:at + count]", "at += count"]
            else:
                body.append(f"{target}, at = split_{kind.shape}(buffer, at, stop, count)")
    if body:
        body = [
            "try:",
            *(f"    {line}" for line in body),
            "except error as e:",
            f"    raise Malformed(f'{name}: {{e}}') from None",
        ]
    body += [
        "if at != stop:",
        f"    raise Malformed(f'{name}: {{stop - at}} bytes behind its last field')",
    ]
    return body, values
