"""Checks the texts and environment variables that a spawn request gives to a process. Pure.

The protection is the list of the profile (`request_env`): a request can set only variables that the profile's author
expected. The names below are refused even if a profile allows every name.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from ..state.errors import InvalidRequest
from ..state.trace import VARIABLE

# The kernel refuses a single argument or variable of 128 KiB or more (MAX_ARG_STRLEN).
MAX_TEXT_BYTES = 120 * 1024
MAX_VARIABLES = 256  # of one request: the Spawner compares each name with every pattern
MAX_NAME_CHARS = 256

ALLOWED_BY_DEFAULT = ("TASK_*", "APP_*")

AGENT_ID, INCARNATION, INSTANCE = "AGENT_ID", "AGENT_INCARNATION", "SIDECAR_INSTANCE"
TOKEN = "JWT_TOKEN"

# The sidecar sets these. Source: the protocol, "Agents"; the last two mark an agent's processes for the census.
SET_BY_SIDECAR = frozenset(
    {
        AGENT_ID,
        "AGENT_TYPE",
        "ISSUE_ID",
        "PROJECT_ID",
        "SIDECAR_URL",
        TOKEN,
        "CONTEXT_URL",
        "AGENT_TASK",
        "PROJECT_ROOT",
        VARIABLE,
        INCARNATION,
        INSTANCE,
    }
)

# Names and patterns that change which code runs, or where a program reads its settings. Source: the manuals of the
# loaders, shells, interpreters and tools named; sudo's env_delete and env_check lists.
_CHANGE_CODE = (
    # the loader and the C library
    *("LD_*", "DYLD_*", "GLIBC_TUNABLES", "MALLOC_*", "GCONV_PATH", "LOCPATH", "NLSPATH", "GETCONF_DIR", "TZDIR"),
    *("HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_*", "KRB5*", "NIS_PATH", "TMPDIR"),
    # the places where programs look for settings
    *("HOME", "USER", "LOGNAME", "SHELL", "XDG_*", "SIDECAR_*", "CLAUDE_*", "CODEX_*", "OPENCODE_*"),
    *("*_BASE_URL", "*_CONFIG_DIR", "*_CONFIG_FILE", "AIDER_*", "GEMINI_CLI*"),
    # shells
    *("PATH", "ENV", "IFS", "PS4", "BASH*", "SHELLOPTS", "KSH_*", "FPATH", "CDPATH", "GLOBIGNORE", "PROMPT_COMMAND"),
    *("ZDOTDIR", "ZSH*", "FISH_*", "INPUTRC", "TERMINFO*", "TERMCAP", "TERMPATH"),
    # programs that other programs start
    *("EDITOR", "VISUAL", "FCEDIT", "PAGER", "MANPAGER", "BROWSER", "LESS*", "*_ASKPASS", "*_PAGER", "*_EDITOR"),
    *("*_RSH", "*_SSH", "*_WRAPPER", "*_BROWSER"),
    # interpreters and virtual machines
    *(
        "PYTHON*",
        "PIP_*",
        "UV_*",
        "VIRTUAL_ENV*",
        "CONDA_*",
        "POETRY_*",
        "PERL*",
        "RUBY*",
        "GEM_*",
        "BUNDLE_*",
        "IRBRC",
    ),
    *("NODE_*", "NPM_*", "YARN_*", "PNPM_*", "COREPACK_*", "BUN_*", "DENO_*", "TS_NODE_*"),
    *("JAVA_*", "*_JAVA_OPTIONS", "JDK_*", "JRE_*", "CLASSPATH", "MAVEN_*", "GRADLE_*", "SBT_*", "ANT_*", "KOTLIN_*"),
    *("DOTNET_*", "CORECLR_*", "COR_*", "COMPLUS_*", "MONO_*", "NUGET_*", "MSBUILD*", "PHP*", "COMPOSER*", "LUA_*"),
    *(
        "R_HOME",
        "R_LIBS*",
        "R_PROFILE*",
        "R_ENVIRON*",
        "JULIA_*",
        "ERL_*",
        "ELIXIR_*",
        "MIX_*",
        "TCL*",
        "GUILE_*",
        "OCAML*",
        "CAML*",
        "SWIFT_*",
        "DART_*",
    ),
    # compilers and builds
    *("CC", "CXX", "CPP", "LD", "AR", "AS", "MAKE*", "GNUMAKEFLAGS", "MFLAGS", "CMAKE_*", "COMPILER_PATH", "GCC_*"),
    *(
        "CARGO*",
        "RUST*",
        "GOFLAGS",
        "GOROOT",
        "GOPATH",
        "GOENV",
        "GOPROXY",
        "GOBIN",
        "GOTOOL*",
        "CGO_*",
        "LIBRARY_PATH",
    ),
    *("CPATH", "*_INCLUDE_PATH", "PKG_CONFIG*", "ACLOCAL*", "LLVM_*", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS"),
    # tools that run what their settings say
    *("GIT_*", "HG*", "SVN_*", "CVS*", "P4*", "SSH_*", "GNUPGHOME", "GPG_*", "DOCKER_*", "KUBECONFIG", "HELM_*"),
    *("AWS_SHARED_CREDENTIALS_FILE",),
    *("TAR_OPTIONS", "RSYNC_*", "CURL_*", "WGETRC", "OPENSSL_*", "SSL_*", "SSLKEYLOGFILE", "REQUESTS_CA_BUNDLE"),
    *(
        "*_PROXY",
        "PSQLRC",
        "PGSERVICEFILE",
        "PGSYSCONFDIR",
        "MYSQL_*",
        "EXINIT",
        "VIM*",
        "NVIM*",
        "EMACS*",
        "SCREENRC",
        "TMUX*",
    ),
    *(
        "PYTEST_*",
        "MYPYPATH",
        "PYLINTRC",
        "COVERAGE_*",
        "IPYTHON*",
        "JUPYTER*",
        "PYENV_*",
        "RBENV_*",
        "NVM_*",
        "ASDF_*",
    ),
    *("VOLTA_*", "SDKMAN_*", "MISE_*", "DIRENV_*", "NIX_*", "GUIX_*", "ELECTRON_*", "ESLINT_*", "DJANGO_*", "FLASK_*"),
    *("*SAN_OPTIONS", "GCOV_*", "DEBUGINFOD_*", "FZF_*", "RIPGREP_*", "STARSHIP_*", "GH_*", "NETRC", "PGPASSFILE"),
    *(
        "ODBC*",
        "ORACLE_*",
        "TNS_ADMIN",
        "REDISCLI_*",
        "CLOUDSDK_*",
        "*_API_BASE",
        "DBUS_*",
        "XAUTHORITY",
        "TMP",
        "TEMP",
    ),
    *("GREP_OPTIONS", "GTK_*", "GIO_*", "GST_*", "QT_*", "TF_CLI*", "ANSIBLE_*", "PRE_COMMIT*"),
)

_FIRST_CHARACTERS = frozenset(string.ascii_letters + "_")
_CHARACTERS = _FIRST_CHARACTERS | frozenset(string.digits + ".-")


def check_environment(environment: Mapping[str, str], allowed: Sequence[str], *, agent_type: str) -> None:
    """Refuse variables that a spawn request may not set.

    Raises InvalidRequest naming the variable and, if a setting would allow it, that setting.

    allowed: `request_env` of the type's profile.
    """
    if len(environment) > MAX_VARIABLES:
        raise InvalidRequest(
            f"environment sets {len(environment)} variables",
            field="environment",
            expected=f"at most {MAX_VARIABLES}",
        )
    for name, value in environment.items():
        check_name(name)
        field = f"environment.{name}"
        profile = f"profiles.{agent_type}"
        if name in SET_BY_SIDECAR:
            raise InvalidRequest(f"environment sets {name}", field=field, expected="a name the sidecar does not set")
        if changes_code(name):
            raise InvalidRequest(
                f"environment sets {name}, which can change what code runs: no request may set it,"
                f" `env` of [{profile}] may",
                field=field,
                expected="a name that does not change what code runs",
            )
        if not any(matches(name, pattern) for pattern in allowed):
            known = ", ".join(allowed) or "none"
            raise InvalidRequest(
                f"environment sets {name}, which {profile}.request_env does not allow: it allows {known}",
                field=field,
                expected=f"a name that matches one of: {known}",
                setting=f"{profile}.request_env",
            )
        check_text(value, field)


def check_text(value: str, field: str) -> None:
    """Refuse a text that cannot be an argument or a variable of a process. Raises InvalidRequest naming `field`."""
    if "\0" in value:
        raise InvalidRequest(f"{field} holds a NUL", field=field, expected="text without NUL characters")
    if len(value.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise InvalidRequest(
            f"{field} is too long for a process to get", field=field, expected=f"at most {MAX_TEXT_BYTES} bytes"
        )


def check_name(name: str) -> None:
    """Refuse a name that shells or other programs may take for something else. Raises InvalidRequest."""
    if len(name) > MAX_NAME_CHARS or name[:1] not in _FIRST_CHARACTERS or not _CHARACTERS.issuperset(name):
        raise InvalidRequest(
            f"invalid environment variable name {name[:100]!r}",
            field="environment",
            expected=f"names of at most {MAX_NAME_CHARS} letters, digits, _, . and - that do not begin with a digit",
        )


def changes_code(name: str) -> bool:
    """Whether a variable of this name can change what code runs, so that no request may ever set it.

    Names that ALLOWED_BY_DEFAULT matches never do: no program has a setting TASK_BASE_URL or APP_PROXY.
    """
    if any(matches(name, pattern) for pattern in ALLOWED_BY_DEFAULT):
        return False
    upper = name.upper()  # some programs look for proxies in either case
    return any(matches(upper, pattern) for pattern in _CHANGE_CODE)


def is_pattern(text: str) -> bool:
    """Whether `request_env` may contain this text: a name, in which each * stands for any characters."""
    return text[:1] in _FIRST_CHARACTERS | {"*"} and _CHARACTERS.issuperset(text.replace("*", ""))


def matches(name: str, pattern: str) -> bool:
    """Whether the whole name matches. Each * of the pattern stands for any characters; takes linear time."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    if not name.startswith(first):
        return False
    at, last = len(first), others.pop()
    for part in others:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(name) - len(last) >= at and name.endswith(last)
