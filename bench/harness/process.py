"""Child processes: started with a log, measured while they run, ended by their own id."""

import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

# Linux's clock id for the CPU time of a whole process, ended threads included: what /proc/PID/stat has as
# utime + stime, in nanoseconds instead of ticks (clock_getcpuclockid(3)).
CPU_CLOCK_OF_PROCESS = 2


class Failed(Exception):
    """A program did not do what it was started for. The text says which and why."""


class Process:
    def __init__(self, command, log: Path, environment=None, folder=None, piped=False):
        self.command = [str(part) for part in command]
        self.log = log
        pipe = subprocess.PIPE if piped else None
        with open(log, "ab") as output:
            self.started = time.monotonic()
            self.popen = subprocess.Popen(
                self.command,
                env={**os.environ, **(environment or {})},
                cwd=folder,
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or output,
                stderr=output,
                text=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def cpu_seconds(self) -> float:
        return time.clock_gettime((~self.popen.pid << 3) | CPU_CLOCK_OF_PROCESS)

    def memory_mb(self) -> tuple[float, float]:
        """Resident now and at its peak, in units of 1,000,000 bytes."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        kib = {name: int(value) for name, value in re.findall(r"^(Vm\w+):\s+(\d+) kB", status, re.MULTILINE)}
        return kib["VmRSS"] * 1024 / 1e6, kib["VmHWM"] * 1024 / 1e6

    def forget_peak(self):
        """The peak is that from now on (proc(5), clear_refs)."""
        Path(f"/proc/{self.popen.pid}/clear_refs").write_text("5")

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def ensure_alive(self):
        if not self.is_alive():
            raise Failed(f"{self.command[0]} ended with {self.popen.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(15)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                pipe.close()
        self.popen.wait()


def run(command, limit: float, **options) -> str:
    """The standard output of a program that ends by itself within `limit` seconds."""
    command = [str(part) for part in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, **options)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} did not end within {limit:.0f} s") from None
    if done.returncode != 0:
        raise Failed(
            f"{' '.join(command[:6])} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return done.stdout


def free_port() -> int:
    """A port of the loopback below the range that outgoing connections take theirs from."""
    for _ in range(1000):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    raise Failed("no free port between 20000 and 32000")


def wait_for(condition, limit: float, what: str, pause: float = 0.05):
    """Returns the first true answer of `condition`."""
    end = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {limit:.0f} s")
        time.sleep(pause)


def idle_clock() -> tuple[float, float]:
    """Ticks that the machine's cores were idle, and all ticks, since its start."""
    with open("/proc/stat") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    return ticks[3], sum(ticks)
