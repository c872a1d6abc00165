"""From text to tree: recursive descent, with a loop over binding powers for expressions."""

from __future__ import annotations

from typing import NoReturn

from bazaar.trace import tree
from bazaar.trace.lexer import Lexer, Span, Token, integer_of, string_of

# C's binding powers; a higher one binds tighter.
POWERS = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6,
    "<": 7, ">": 7, "<=": 7, ">=": 7, "<<": 8, ">>": 8,
    "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
CASTS = frozenset(
    f"{sign}int{bits}{suffix}"
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
    for suffix in ("", "_t")
)
_COMPOUND = {
    f"{operator}=": operator for operator in ("+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>")
}
_LOOPS = "loops are not supported yet; `unroll (n) { … }` repeats a body so many times"
_REFUSED = {
    "for": _LOOPS,
    "while": _LOOPS,
    "break": "there are no loops to break out of",
    "continue": "there are no loops to continue",
    "offsetof": "C types are not supported",
    "sizeof": "C types are not supported",
}
_REFUSED_AT_TOP = {
    "config": "config blocks are not supported; options stand on the command line",
    "macro": "macros are not supported",
    "import": "imports are not supported",
    "fn": "functions are not supported",
    "struct": "C types are not supported; fields of tracepoints are known by themselves",
    "union": "C types are not supported; fields of tracepoints are known by themselves",
    "enum": "C types are not supported",
    "#": "the C preprocessor is not supported; write the value itself, or pass it as $1",
}
_DEPTH = 60  # of nesting; keeps every later walk over the tree far from Python's own limit
_CHAIN = 250  # operators of one expression in a row


def parse(text: str) -> tree.Program:
    """The tree of a program; raises TraceError that points at the first mistake."""
    try:
        return _Parser(text).program()
    except RecursionError:
        raise Lexer(text).error("the program is nested too deeply", (0, 1)) from None


class _Parser:
    def __init__(self, text: str) -> None:
        self.lexer = Lexer(text)
        self.ahead: Token | None = None
        self.end = 0  # offset after the token taken last
        self.depth = 0
        self.in_predicate = False

    # Tokens

    def peek(self) -> Token:
        if self.ahead is None:
            self.ahead = self.lexer.token()
        return self.ahead

    def next(self) -> Token:
        token = self.peek()
        self.ahead = None
        self.end = token.span[1]
        return token

    def at(self, *texts: str) -> bool:
        token = self.peek()
        return token.kind in ("sign", "name") and token.text in texts

    def take(self, text: str) -> bool:
        if self.at(text):
            self.next()
            return True
        return False

    def expect(self, text: str) -> Token:
        if not self.at(text):
            self.unexpected(f"'{text}'")
        return self.next()

    def unexpected(self, expected: str) -> NoReturn:
        token = self.peek()
        what = f"'{token.text}'" if token.kind != "end" else "end of the program"
        raise self.lexer.error(f"unexpected {what}, expecting {expected}", token.span)

    def after_space(self) -> str:
        """The first character of what comes next, comments passed over."""
        if self.ahead is None:
            self.lexer.skip_space()
            return self.lexer.text[self.lexer.position : self.lexer.position + 1]
        return self.ahead.text[:1]

    # Clauses

    def program(self) -> tree.Program:
        if self.lexer.text.startswith("#!"):
            end = self.lexer.text.find("\n")
            self.lexer.position = len(self.lexer.text) if end < 0 else end
        clauses: list[tree.Clause] = []
        while self.after_space():
            clauses.append(self.clause())
        if not clauses:
            raise self.lexer.error(
                "the program has no probe", (0, 1), 'for example: BEGIN { printf("hello\\n"); }'
            )
        return tree.Program(tuple(clauses))

    def clause(self) -> tree.Clause:
        points = [self.point()]
        while self.after_space() == ",":
            self.next()
            points.append(self.point())
        predicate = None
        if self.after_space() == "/":
            self.lexer.position += 1
            self.in_predicate = True
            predicate = self.expression()
            self.in_predicate = False
            self.expect("/")
        elif self.after_space() != "{":
            self.unexpected("'{', '/' or ','")
        body = self.block()
        return tree.Clause((points[0].span[0], self.end), tuple(points), predicate, body)

    def point(self) -> tree.Point:
        token = self.lexer.probe()
        if token.text[0] == "#" or token.text in _REFUSED_AT_TOP:
            key = "#" if token.text[0] == "#" else token.text
            raise self.lexer.error(_REFUSED_AT_TOP[key], token.span)
        self.end = token.span[1]
        return tree.Point(token.span, tuple(token.text.split(":")))

    # Statements

    def block(self) -> tuple[tree.Statement, ...]:
        opening = self.expect("{")
        self.enter(opening.span)
        body: list[tree.Statement] = []
        while not self.at("}"):
            if self.take(";"):
                continue
            body.append(self.statement())
            closed = isinstance(body[-1], tree.If | tree.Unroll)
            if not closed and not self.at("}"):
                self.expect(";")
        self.next()
        self.depth -= 1
        return tuple(body)

    def statement(self) -> tree.Statement:
        token = self.peek()
        start = token.span[0]
        if token.kind == "name":
            if token.text == "if":
                return self.condition()
            if token.text == "unroll":
                self.next()
                self.expect("(")
                count = self.expression()
                self.expect(")")
                return tree.Unroll((start, self.end), count, self.block())
            if token.text == "return":
                self.next()
                if not self.at(";", "}"):
                    raise self.lexer.error("return takes no value here", self.peek().span)
                return tree.Return((start, self.end))
            if token.text == "let":
                self.next()
                if self.peek().kind != "variable":
                    self.unexpected("a variable ($name)")
            elif token.text in _REFUSED:
                raise self.lexer.error(_REFUSED[token.text], token.span)
        return self.simple(start)

    def simple(self, start: int) -> tree.Statement:
        """An assignment, or an expression evaluated for what it does."""
        value = self.expression()
        sign = self.peek()
        if sign.kind == "sign" and (sign.text == "=" or sign.text in _COMPOUND):
            if not isinstance(value, tree.Variable | tree.Map):
                raise self.lexer.error("only a map or a variable can be assigned to", value.span)
            self.next()
            right = self.expression()
            return tree.Assign((start, self.end), value, _COMPOUND.get(sign.text, ""), right)
        if not isinstance(value, tree.Call | tree.Step):
            raise self.lexer.error("this expression does nothing", value.span)
        return tree.Evaluate((start, self.end), value)

    def condition(self) -> tree.If:
        start = self.next().span
        self.enter(start)
        self.expect("(")
        condition = self.expression()
        self.expect(")")
        then = self.block()
        otherwise: tuple[tree.Statement, ...] = ()
        if self.take("else"):
            otherwise = (self.condition(),) if self.at("if") else self.block()
        self.depth -= 1
        return tree.If((start[0], self.end), condition, then, otherwise)

    # Expressions

    def enter(self, span: Span) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            raise self.lexer.error("the program is nested too deeply", span)

    def expression(self) -> tree.Expression:
        """A whole expression, with ``?:``."""
        start = self.peek().span
        self.enter(start)
        node = self.binary(0)
        if self.take("?"):
            then = self.expression()
            self.expect(":")
            otherwise = self.expression()
            node = tree.Ternary((start[0], self.end), node, then, otherwise)
        self.depth -= 1
        return node

    def binary(self, least: int) -> tree.Expression:
        left = self.unary()
        chain = 0
        while (operator := self.operator()) and POWERS[operator] > least:
            chain += 1
            if chain > _CHAIN:
                raise self.lexer.error("this expression is too long", self.peek().span)
            self.next()
            right = self.binary(POWERS[operator])
            left = tree.Binary((left.span[0], self.end), operator, left, right)
        return left

    def operator(self) -> str | None:
        token = self.peek()
        if token.kind != "sign" or token.text not in POWERS:
            return None
        if token.text == "/" and self.in_predicate:
            # The '/' that stands before the body ends the predicate.
            rest = Lexer(self.lexer.text)
            rest.position = token.span[1]
            rest.skip_space()
            if rest.text.startswith("{", rest.position):
                return None
        return token.text

    def unary(self) -> tree.Expression:
        token = self.peek()
        start = token.span[0]
        if token.kind == "sign":
            if token.text in ("-", "+", "!", "~"):
                self.next()
                self.enter(token.span)
                operand = self.unary()
                self.depth -= 1
                return (
                    operand
                    if token.text == "+"
                    else tree.Unary((start, self.end), token.text, operand)
                )
            if token.text in ("++", "--"):
                self.next()
                target = self.postfix(self.primary())
                return self.step(token, target, (start, self.end), before=True)
            if token.text in ("*", "&"):
                raise self.lexer.error(
                    "pointers are not supported, apart from str(pointer)", token.span
                )
        return self.postfix(self.primary())

    def step(self, token: Token, target: tree.Expression, span: Span, *, before: bool) -> tree.Step:
        if not isinstance(target, tree.Variable | tree.Map):
            raise self.lexer.error(f"'{token.text}' needs a map or a variable", target.span)
        return tree.Step(span, token.text, target, before)

    def postfix(self, node: tree.Expression) -> tree.Expression:
        start = node.span[0]
        chain = 0
        while self.at(".", "->", "[", "++", "--"):
            token = self.next()
            chain += 1
            if chain > _DEPTH:
                raise self.lexer.error("this expression is too long", token.span)
            if token.text in ("++", "--"):
                return self.step(token, node, (start, self.end), before=False)
            if token.text == "[":
                index = self.expression()
                self.expect("]")
                node = tree.Index((start, self.end), node, index)
            else:
                name = self.peek()
                if name.kind != "name":
                    self.unexpected("a field's name")
                self.next()
                node = tree.Field((start, self.end), node, name.text, name.span)
        return node

    def primary(self) -> tree.Expression:  # noqa: PLR0911 - one line a kind of token
        token = self.next()
        match token.kind:
            case "number":
                value = integer_of(token)
                if value is None:
                    raise self.lexer.error(
                        f"'{token.text}' is not a number of up to 64 bits", token.span
                    )
                return tree.Integer(token.span, value)
            case "string":
                return tree.String(token.span, string_of(token))
            case "positional":
                number = token.text[1:]
                if number != "#" and not 0 < int(number[:9]) < 1000:
                    raise self.lexer.error(
                        "parameters are $1, $2, … and their count $#", token.span
                    )
                return tree.Positional(token.span, 0 if number == "#" else int(number))
            case "variable":
                return tree.Variable(token.span, token.text)
            case "map":
                return self.map(token)
            case "name":
                return self.name(token)
            case _:
                return self.parenthesis(token)

    def map(self, token: Token) -> tree.Map:
        keys: tuple[tree.Expression, ...] = ()
        if self.at("["):
            self.next()
            keys = self.list("]")
            if not keys:
                raise self.lexer.error("a key is missing", (token.span[0], self.end))
        return tree.Map((token.span[0], self.end), token.text, keys)

    def list(self, closing: str) -> tuple[tree.Expression, ...]:
        """Expressions between commas up to ``closing``, which is taken."""
        # Inside brackets a '/' always divides.
        outside, self.in_predicate = self.in_predicate, False
        found: list[tree.Expression] = []
        while not self.at(closing):
            found.append(self.expression())
            if not self.at(closing, ","):
                self.unexpected(f"'{closing}' or ','")
            if self.take(",") and self.at(closing):
                self.unexpected("an expression")
        self.in_predicate = outside
        self.next()
        return tuple(found)

    def name(self, token: Token) -> tree.Expression:
        if token.text in _REFUSED or token.text in ("if", "else", "unroll", "return", "let"):
            message = _REFUSED.get(
                token.text, f"unexpected '{token.text}', expecting an expression"
            )
            raise self.lexer.error(message, token.span)
        if self.take("("):
            arguments = self.list(")")
            return tree.Call((token.span[0], self.end), token.text, arguments)
        return tree.Name(token.span, token.text)

    def parenthesis(self, token: Token) -> tree.Expression:
        if token.text != "(" or token.kind != "sign":
            self.ahead = token
            self.unexpected("an expression")
        if self.peek().kind == "name" and self.peek().text in CASTS:
            name = self.next()
            if not self.at(")"):
                raise self.lexer.error(
                    "only casts to integers are supported", (name.span[0], self.peek().span[1])
                )
            self.next()
            self.enter(token.span)
            operand = self.unary()
            self.depth -= 1
            return tree.Cast((token.span[0], self.end), name.text.removesuffix("_t"), operand)
        if self.at("struct", "union", "enum", "char", "void"):
            raise self.lexer.error("only casts to integers are supported", self.peek().span)
        outside, self.in_predicate = self.in_predicate, False
        node = self.expression()
        if self.at(","):
            raise self.lexer.error(
                "tuples are not supported; a map's key may have several parts",
                (token.span[0], self.peek().span[1]),
            )
        self.in_predicate = outside
        self.expect(")")
        return node
