"""Script of the process that renders chat templates: reads one JSON request per line, writes one reply per line.

It does not import this library, and exits at the end of its input.
"""

import contextlib
import json
import sys


def main() -> None:
    """Render requests until the input ends."""
    from transformers.utils.chat_template_utils import render_jinja_template

    memory, longest = int(sys.argv[1]), int(sys.argv[2])
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such limits on this system; time is still limited
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            rendered, spans = render_jinja_template(**json.loads(line))
            if sum(map(len, rendered)) > longest:
                raise ValueError(f"it makes more than {longest} characters")
            reply = {"rendered": rendered, "spans": spans}
        except MemoryError:
            reply = {"error": f"it takes more than {memory >> 20} MB"}
        except Exception as error:  # noqa: BLE001 - error of the template, raised by the calling process
            reply = {"error": " ".join(str(error).split())[:500] or type(error).__name__}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
