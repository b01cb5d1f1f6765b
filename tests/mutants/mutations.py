"""Mutants of a module's source: one small change each, by mutmut's operators and a few of our own.

mutmut's own walk leaves decorated functions out, so its operators are applied here. They change numbers, texts,
operators, comparisons, keywords, assignments, lambdas and conditional expressions, and they drop or empty arguments.
Ours: a call gives its first argument, a method call its object, a condition is turned round, a decorator is dropped.
Annotations, imports and protocols stay: they do nothing at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators


@dataclass(frozen=True)
class Mutant:
    """One changed source. `was` and `becomes`, the changed lines, name it wherever they stand in the file."""

    code: str
    line: int
    was: str
    becomes: str

    @classmethod
    def of(cls, source: str, code: str) -> Mutant:
        """The mutant of `source` whose changed source is `code`."""
        before, after = source.splitlines(), code.splitlines()
        start = _count_equal(before, after)
        end = _count_equal(before[start:][::-1], after[start:][::-1])
        was, becomes = before[start : len(before) - end], after[start : len(after) - end]
        return cls(code, start + 1, *(" ".join(line.strip() for line in lines) for lines in (was, becomes)))

    def __str__(self) -> str:
        return f"{self.was}  ->  {self.becomes}"


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module's source that can be compiled, each once, in the order of their lines."""
    wrapper, visitor = MetadataWrapper(cst.parse_module(source)), _Visitor()
    module, spans = wrapper.module, wrapper.resolve(WhitespaceInclusivePositionProvider)
    module.visit(visitor)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    codes: dict[str, None] = {}
    for node, changed in visitor.changes:
        if isinstance(node, cst.FunctionDef | cst.ClassDef):  # its lines need the indentation around it
            codes[_text(module.deep_replace(node, changed))] = None
        else:
            begin, end = (starts[at.line - 1] + at.column for at in (spans[node].start, spans[node].end))
            codes[source[:begin] + _text(changed) + source[end:]] = None
    return sorted(
        (Mutant.of(source, code) for code in codes if code != source and _compiles(code)), key=lambda m: m.line
    )


class _Visitor(cst.CSTVisitor):
    """Collects (node, changed node)."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[cst.CSTNode, cst.CSTNode]] = []
        self._no_objects = {"self", "cls", "super"}

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Import | cst.ImportFrom):
            names = () if isinstance(node.names, cst.ImportStar) else node.names
            self._no_objects |= {_text(name.asname.name if name.asname else name.name) for name in names}
            return False
        protocol = isinstance(node, cst.ClassDef) and any(_text(base.value) == "Protocol" for base in node.bases)
        alias = isinstance(node, cst.AnnAssign) and _text(node.annotation.annotation) == "TypeAlias"
        if protocol or alias or isinstance(node, cst.Annotation):
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                self.changes += [(node, changed) for changed in operator(node)]
        self.changes += self._our_changes(node)
        return True

    def _our_changes(self, node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
        if isinstance(node, cst.Call):
            if node.args and not node.args[0].star and not node.args[0].keyword:
                yield node, _in_brackets(node.args[0].value)
            if isinstance(node.func, cst.Attribute) and _text(node.func.value) not in self._no_objects:
                yield node, node.func.value
        elif isinstance(node, cst.If | cst.While):
            yield node.test, _in_brackets(cst.UnaryOperation(cst.Not(), _in_brackets(node.test)))
        elif isinstance(node, cst.FunctionDef | cst.ClassDef):
            for dropped in node.decorators:
                yield node, node.with_changes(decorators=[one for one in node.decorators if one is not dropped])


def _text(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)


def _in_brackets(node: cst.BaseExpression) -> cst.BaseExpression:
    return node.with_changes(lpar=[cst.LeftParen(), *node.lpar], rpar=[*node.rpar, cst.RightParen()])


def _count_equal(before: list[str], after: list[str]) -> int:
    """How many lines at the beginning are equal."""
    pairs = zip(before, after, strict=False)
    return next((n for n, (old, new) in enumerate(pairs) if old != new), min(len(before), len(after)))


def _compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True
