"""HTML from functions: text is escaped unless it is Html already, which only `tag` makes."""

from html import escape


class Html(str):
    """Text that is markup."""

    __slots__ = ()


VOID = frozenset({"meta", "link"})


def tag(name: str, /, *children: str, **attributes: str | bool | None) -> Html:
    """An element. `class_` is class and `data_key` data-key; False and None leave one out."""
    start = name + "".join(_attribute(*item) for item in attributes.items())
    if name in VOID:
        return Html(f"<{start}>")
    return Html(f"<{start}>{text(*children)}</{name}>")


def text(*parts: str) -> Html:
    """Parts in a row, those escaped that are not markup."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def _attribute(name: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'
