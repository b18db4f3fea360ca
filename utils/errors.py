"""One sentence for a user's mistake, a traceback only for ours."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake of the user's: the message is one sentence naming the file or option, what is wrong and what to do."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the valid name closest to `name`, or an empty string when none is close."""
    match = get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def _sentence(error: OSError) -> str | None:
    where = error.filename or "the output folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"No space left on device while writing {where}: free some and give the same command again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission for {where}: change its owner or mode, or choose another folder."
    if error.errno == errno.ENOENT:
        return f"{where} does not exist: check the path, or run the stage that makes it."
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return f"{where} is {'a folder' if error.errno == errno.EISDIR else 'not a folder'}: check the path."
    return None


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with its status; a `UserError` becomes a line on stderr and status 1, Ctrl-C status 130."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted: nothing finished is lost, the same command continues", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # whoever read the output has enough (head): Python's own attempts to write must end too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        status = 1
    sys.exit(status or 0)
