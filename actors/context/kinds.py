"""The kinds of files: languages, recognised by the path alone, and roles, which roles.py recognises."""

from __future__ import annotations

from enum import StrEnum

from ...state.remembered import remembered

_LANGUAGES: dict[str, str] = {
    "python": "py pyi pyx pyw ipynb",
    "go": "go",
    "rust": "rs",
    "javascript": "js jsx mjs cjs",
    "typescript": "ts tsx mts cts",
    "vue": "vue",
    "svelte": "svelte",
    "java": "java",
    "kotlin": "kt kts",
    "scala": "scala sc",
    "groovy": "groovy gradle",
    "c": "c h",
    "cpp": "cc cpp cxx hh hpp hxx ipp",
    "csharp": "cs",
    "fsharp": "fs fsi fsx",
    "objective-c": "m mm",
    "swift": "swift",
    "ruby": "rb rake gemspec",
    "php": "php phtml",
    "perl": "pl pm t",
    "lua": "lua",
    "r": "r",
    "julia": "jl",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "haskell": "hs lhs",
    "ocaml": "ml mli",
    "clojure": "clj cljs cljc edn",
    "dart": "dart",
    "zig": "zig",
    "nim": "nim",
    "solidity": "sol",
    "shell": "sh bash zsh fish ksh",
    "powershell": "ps1 psm1 psd1",
    "sql": "sql",
    "graphql": "graphql gql",
    "protobuf": "proto",
    "terraform": "tf tfvars hcl",
    "html": "html htm xhtml",
    "css": "css scss sass less",
    "markdown": "md markdown mdx",
    "restructuredtext": "rst",
    "asciidoc": "adoc asciidoc",
    "text": "txt text",
    "json": "json json5 jsonc",
    "yaml": "yml yaml",
    "toml": "toml",
    "ini": "ini cfg conf properties",
    "xml": "xml xsd xsl",
    "csv": "csv tsv",
    "jinja": "j2 jinja jinja2",
    "cmake": "cmake",
    "nix": "nix",
}
_LANGUAGE_OF_SUFFIX = {suffix: language for language, suffixes in _LANGUAGES.items() for suffix in suffixes.split()}
_LANGUAGE_OF_NAME = {
    "dockerfile": "docker",
    "containerfile": "docker",
    "makefile": "make",
    "gnumakefile": "make",
    "cmakelists.txt": "cmake",
    "jenkinsfile": "groovy",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "vagrantfile": "ruby",
    "go.mod": "go-module",
    "go.sum": "go-module",
    "justfile": "make",
}
PROSE = {"markdown", "restructuredtext", "asciidoc", "text"}
DATA = {"json", "yaml", "toml", "ini", "xml", "csv", "go-module"}
# A language that its specialists read along with their own.
_KIN = {
    "typescript": {"typescript", "javascript", "vue", "svelte"},
    "javascript": {"javascript", "typescript", "vue", "svelte"},
    "vue": {"vue", "typescript", "javascript", "css", "html"},
    "svelte": {"svelte", "typescript", "javascript", "css", "html"},
    "c": {"c", "cpp"},
    "cpp": {"cpp", "c"},
    "java": {"java", "kotlin"},
    "kotlin": {"kotlin", "java"},
    "html": {"html", "css", "javascript", "typescript", "vue", "svelte", "jinja"},
    "terraform": {"terraform"},
}


class Role(StrEnum):
    """The purpose of a file. A file has one role, the first that fits in the order below."""

    LOCK = "lock"
    COVERAGE = "coverage"
    POLICY = "policy"
    CI = "ci"
    API_SPEC = "api_spec"
    MANIFEST = "manifest"
    TEST = "test"
    DESIGN = "design"
    DOC = "doc"
    SOURCE = "source"
    DATA = "data"
    OTHER = "other"


@remembered(8 << 20)
def language_of(path: str) -> str:
    """The language of a file by its name; `text` where nothing is known."""
    name = path.rpartition("/")[2].lower()
    if (language := _LANGUAGE_OF_NAME.get(name)) is not None:
        return language
    suffix = name.rpartition(".")[2] if "." in name.lstrip(".") else ""
    return _LANGUAGE_OF_SUFFIX.get(suffix, "text")


def is_known_suffix(path: str) -> bool:
    return path.rpartition(".")[2].lower() in _LANGUAGE_OF_SUFFIX


def is_code(language: str) -> bool:
    """Whether people write programs in it (not prose, not data)."""
    return language not in PROSE and language not in DATA


def read_along_with(language: str) -> frozenset[str]:
    """The languages that belong to a specialist of `language`."""
    return frozenset(_KIN.get(language, {language}))
