"""Read a shell's text: which programs it starts, each with its words. tree-sitter's grammar of bash splits it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from engineroom.trtllm.flags import FlagError
from engineroom.trtllm.values import ShellWord

BASH = Language(tree_sitter_bash.language())
REDIRECTS = ("file_redirect", "herestring_redirect", "heredoc_redirect")
EXPANSIONS = (
    "simple_expansion",
    "expansion",
    "command_substitution",
    "arithmetic_expansion",
    "process_substitution",
    "brace_expression",
    "ansi_c_string",
)
PROMPT = re.compile(r"^[ \t]*(?:[\w.-]+@[\w.-]+:\S*[$#]|\$)[ \t]+", re.MULTILINE)
SPACED_CONTINUATION = re.compile(r"\\[ \t\r]+\Z")


@dataclass(frozen=True)
class SimpleCommand:
    """A program and its words, with the text that a here-document or a here-string gives to its input."""

    words: Sequence[str]
    stdin: str | None = None


def simple_commands(text: str) -> list[SimpleCommand]:
    """The commands of a shell's text in their order, those in loops, pipes and substitutions included.

    Raises FlagError for a text that a shell cannot read, and for one in which nothing would run.
    """
    if PROMPT.match(text):
        text = PROMPT.sub("", text)  # copied out of a terminal
    root = Parser(BASH).parse(text.encode(errors="replace")).root_node
    if root.has_error:
        raise FlagError("line", [_syntax_problem(root)])
    if not text.strip():
        raise FlagError("line", ["it is empty: nothing would run."])
    if all(child.type == "comment" for child in root.children):
        raise FlagError("line", ["it is only a comment: nothing would run. Remove the # before the command."])
    return [_simple_command(node) for node in _nodes(root) if node.type == "command"]


def _nodes(root: Node) -> Iterator[Node]:
    """The node and all nodes below it, in the order of the text."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _syntax_problem(root: Node) -> str:
    """What keeps a shell from reading the text."""
    node = next(node for node in _nodes(root) if node.is_error or node.is_missing)
    source = _text(node)
    quote = next((mark for mark in "\"'`" if source.lstrip().startswith(mark)), None)
    if node.is_missing and node.type in ("`", '"', "'"):
        quote = node.type
    if quote:
        return f"the quote {quote} is opened and never closed: {source[:60]!r}. Close it, or write \\{quote}."
    if node.is_missing:
        before = _text(root).encode()[: node.start_byte].decode(errors="replace")[-40:]
        return f"a shell cannot read it: {node.type!r} is missing after {before!r}."
    return f"a shell cannot read it near {source[:60]!r}."


def _simple_command(node: Node) -> SimpleCommand:
    words: list[ShellWord] = []
    inputs: list[str] = []
    siblings = node.parent.children if node.parent and node.parent.type == "redirected_statement" else []
    redirects = [sibling for sibling in siblings if sibling.type in REDIRECTS]
    for child in [*node.children, *redirects]:
        if child.type not in REDIRECTS:
            words.append(_word(child))
            continue
        arguments, text = _redirect(child)
        words += arguments
        inputs += text
    return SimpleCommand(words, inputs[-1] if inputs else None)


def _redirect(node: Node) -> tuple[list[ShellWord], list[str]]:
    """The words of the command that follow a redirection, and the text that it gives to the command's input.

    In ``echo > log word`` the grammar counts ``word`` to the redirection.
    """
    if node.type == "file_redirect":
        return [_word(child) for child in node.children_by_field_name("destination")[1:]], []
    if node.type == "herestring_redirect":
        texts = [str(_word(child)) for child in node.named_children if child.type != "file_descriptor"]
        return [], texts[:1]
    bodies = [_text(child) for child in node.children if child.type == "heredoc_body"]
    return [_word(child) for child in node.children_by_field_name("argument")], bodies or [""]


def _word(node: Node) -> ShellWord:
    expands = any(child.type in EXPANSIONS for child in _nodes(node))
    return ShellWord(_unquoted(node), _text(node), expands=expands)


def _unquoted(node: Node) -> str:
    source = _text(node)
    if node.type in ("concatenation", "command_name"):
        return "".join(map(_unquoted, node.children))
    if node.type == "raw_string":
        return source[1:-1]
    if node.type == "string":
        return re.sub(r'\\(?:\n|([$`"\\]))', lambda match: match[1] or "", source[1:-1])
    if node.type == "word":
        return re.sub(r"\\(?:\n|(.))", lambda match: match[1] or "", source, flags=re.DOTALL)
    return source
