"""As much of curl as the pages use, for machines that have none: -s, -i, -H, -X, --json, a URL."""

import sys
import urllib.error
import urllib.request


def main(words: list[str]) -> None:
    """One request; its body (with -i its status and headers first) on standard output."""
    method, data, url, show_headers = None, None, "", False
    headers: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        match word:
            case "-s":
                pass
            case "-i":
                show_headers = True
            case "-X":
                method = next(rest)
            case "-H":
                name, _, value = next(rest).partition(":")
                headers[name] = value.strip()
            case "--json":
                data = next(rest).encode()
                headers |= {"Content-Type": "application/json", "Accept": "application/json"}
            case _ if word.startswith("-"):
                sys.exit(f"stand_in_curl: {word} is not known here")
            case _:
                url = word
    asked = urllib.request.Request(url, data, headers, method=method)
    try:
        answer = urllib.request.urlopen(asked, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        if show_headers:
            print(f"HTTP/1.1 {answer.status} {answer.reason}\n{answer.headers}".rstrip(), end="\n\n")
        sys.stdout.write(answer.read().decode())


if __name__ == "__main__":
    main(sys.argv[1:])
