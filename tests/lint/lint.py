#!/usr/bin/env python3
"""Style as a test: what STYLE.md promises and a compiler does not check. Prints file:line: what, exits 1 on findings."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAXIMUM_FILE = 600
MAXIMUM_FUNCTION = 70
MAXIMUM_MAIN = 80
COLUMNS = 120

# A folder may include from these folders only (dependencies point one way).
ALLOWED = {
    "runtime": {"runtime"},
    "interfaces": {"interfaces", "runtime"},
    "kernel": {"kernel", "runtime"},
    "state": {"state", "kernel", "interfaces", "runtime"},
    "protocol": {"protocol", "interfaces", "runtime", "state/driver.h"},
    "som": {"som", "protocol", "interfaces", "runtime"},
    "soa": {"soa", "protocol", "state", "kernel", "interfaces", "runtime"},
    "tde": {"tde", "protocol", "kernel", "interfaces", "runtime"},
    "cli": {"cli", "interfaces", "runtime", "state"},
    "lab": {"lab", "interfaces", "runtime", "kernel", "tde/qemu"},
}

# (pattern, where it is allowed, what to do instead)
BANNED = [
    (r"\bsleep_for\b|\busleep\s*\(|\bnanosleep\s*\(|[^_\w]sleep\s*\(\s*\d", ("runtime/", "lab/poll"),
     "wait for a condition with a deadline"),
    (r"\[\] \{ return false; \}, ", ("lab/hypervisor.cpp", "protocol/tests/harness.cpp"), "a fixed sleep by another name: wait for a condition"),
    (r"steady_clock::now|system_clock::now|\bclock_gettime\s*\(|\bgettimeofday\s*\(", 
     ("runtime/", "lab/", "bench/", "interfaces/transport/", "cli/client.cpp"),   # gRPC's deadlines are wall-clock times
     "take an Instant, or a Clock from runtime/clock.h"),
    (r"std::random_device|\brand\s*\(\s*\)|\bsrand\s*\(", ("runtime/", "interfaces/transport/"), "take randomness from outside"),
    (r"\bsystem\s*\(\s*[\"a-z]|\bpopen\s*\(", (), "start programs with an argument vector"),
    (r"\bstrcpy\s*\(|\bsprintf\s*\(|\bgets\s*\(|\batoi\s*\(", (), "use a bounded call that reports errors"),
    (r"\bTODO\b|\bFIXME\b|\bXXX\b", (), "do it, or write an issue"),
]


def tracked():
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True,
                           capture_output=True, check=True).stdout.split("\n")
    return [ROOT / n for n in names if n and (ROOT / n).is_file()]


def without_comments_and_strings(text):
    blank = lambda match: re.sub(r"[^\n]", " ", match.group())
    text = re.sub(r'R"(\w*)\((?:.|\n)*?\)\1"', blank, text)
    return re.sub(r'//[^\n]*|/\*(?:.|\n)*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'', blank, text)


def functions(code):
    """(first line, length) of each function body: a brace that follows a parameter list at namespace or class level."""
    depth_is_function, line, starts = [], 1, []
    start_of_statement = 0
    for position, character in enumerate(code):
        if character == "\n":
            line += 1
        elif character == "{":
            head = code[start_of_statement:position].strip()
            inside = any(depth_is_function)
            is_function = not inside and ")" in head and not re.match(r"(namespace|enum|struct|class|union)\b", head) \
                and not head.endswith("=")
            depth_is_function.append(is_function)
            starts.append(line)
            start_of_statement = position + 1
        elif character == "}":
            if depth_is_function:
                was_function, first = depth_is_function.pop(), starts.pop()
                if was_function:
                    yield first, line - first + 1
            start_of_statement = position + 1
        elif character == ";":
            start_of_statement = position + 1


def check_source(path, name, report):
    text = path.read_text()
    lines = text.split("\n")
    code = without_comments_and_strings(text)
    if len(lines) > MAXIMUM_FILE:
        report(1, f"{len(lines)} lines; a file has at most {MAXIMUM_FILE}")
    if name.endswith("/main.cpp") and not name.startswith("tests/") and len(lines) > MAXIMUM_MAIN:
        report(1, f"main has {len(lines)} lines; it wires, in at most {MAXIMUM_MAIN}")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            report(number, f"{len(line)} columns; at most {COLUMNS}")
    top = name.split("/")[0]
    is_test = "test" in name or top in ("tests", "bench")
    if name.endswith(".h"):
        if not text.startswith("//"):
            report(1, "a header begins with its contract, as a comment")
        if "#pragma once" not in text:
            report(1, "missing #pragma once")
    if top in ALLOWED and not is_test:
        for match in re.finditer(r'^#include "([^"]+)"', text, re.M):
            target = match.group(1)
            if "/" in target and not any(target == a or target.startswith(a + "/") for a in ALLOWED[top]):
                report(text.count("\n", 0, match.start()) + 1, f"{top}/ may not include {target}")
    for pattern, exempt, instead in BANNED:
        if (exempt and name.startswith(exempt)) or (is_test and "clock" in pattern):
            continue
        subject = text if "TODO" in pattern else code
        for match in re.finditer(pattern, subject):
            report(subject.count("\n", 0, match.start()) + 1, f"'{match.group().strip()}' is banned: {instead}")
    for first, length in functions(code):
        if length > MAXIMUM_FUNCTION:
            report(first, f"a function of {length} lines; at most {MAXIMUM_FUNCTION}")


def check_links(path, name, report):
    text = path.read_text()
    for match in re.finditer(r"\]\(([^)#\s]+)(#[^)]*)?\)", text):
        target = match.group(1)
        if "://" not in target and not (path.parent / target).exists():
            report(text.count("\n", 0, match.start()) + 1, f"link to {target}, which does not exist")


def main():
    findings, sources, test_lines, source_lines = [], 0, 0, 0
    for path in tracked():
        name = str(path.relative_to(ROOT))
        report = lambda line, what: findings.append(f"{name}:{line}: {what}")
        if re.search(r"\.(cpp|h)$", name):
            sources += 1
            count = len(path.read_text().split("\n"))
            if "test" in name or name.startswith(("tests/", "bench/")):
                test_lines += count
            else:
                source_lines += count
            check_source(path, name, report)
        elif name.endswith(".md"):
            check_links(path, name, report)
        elif name.endswith((".proto", ".cmake", ".sh", ".py", ".yaml")) and "TODO" in path.read_text() \
                and name != "tests/lint/lint.py":
            report(1, "a left marker")
    for finding in sorted(findings):
        print(finding)
    print(f"lint: {sources} C++ files, {source_lines} source lines, {test_lines} test lines, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
