"""Jobs of every kind from a seed, and how each of them has to end. Imported by `mix.py`."""

import random
import time

# The shares of the jobs, in a thousand, and the settings of their queues. `single` shows the order by
# priority and number, `rated` the bound of starts in a minute.
QUEUES = {
    "heavy": (430, {"weight": 8, "concurrency": 8}),
    "middle": (300, {"weight": 3, "concurrency": 8}),
    "light": (160, {"weight": 1, "concurrency": 8}),
    "single": (70, {"weight": 2, "concurrency": 1}),
    "rated": (15, {"weight": 4, "concurrency": 8, "starts_per_minute": 1200}),
    "default": (25, {"weight": 1, "concurrency": 4}),
}
KEYS = 20
STAGES = ("success", "finish")


class Planned:
    """A job: what is submitted, and what must become of it."""

    def __init__(self, spec, reason=None, attempts=1):
        self.spec, self.reason, self.attempts = spec, reason, attempts
        # Indices of jobs of the whole run, and "success" or "finish".
        self.after = []
        self.number = None

    @property
    def succeeds(self):
        return self.reason is None

    def settle(self, planned):
        """Fails because of another job, if it has to; those that it waits for are settled."""
        if any(on == "success" and not planned[index].succeeds for index, on in self.after):
            self.reason, self.attempts = "dependency", 0


def behaviour(chance):
    """What it runs, how that ends, and at which attempt."""
    kind = chance.choices(
        ["succeeds", "fails", "flaky", "exhausted", "another code", "shows", "shows not", "missing"],
        [80, 5, 4, 2, 1, 4, 3, 1])[0]
    backoff = round(chance.uniform(0.02, 0.5), 3)
    if kind == "succeeds":
        return Planned({"argv": ["true"]})
    if kind == "fails":
        return Planned({"argv": ["false"]}, "exit_code")
    if kind == "flaky":
        attempts = chance.randint(2, 3)
        return Planned({"shell": f'[ "$CC_EXECUTOR_ATTEMPT" -ge {attempts} ]',
                        "retry": {"max_attempts": 4, "backoff_s": backoff}}, attempts=attempts)
    if kind == "exhausted":
        attempts = chance.randint(2, 3)
        retry = {"max_attempts": attempts, "backoff_s": backoff, "max_backoff_s": 0.6}
        return Planned({"argv": ["false"], "retry": retry}, "exit_code", attempts)
    if kind == "another code":
        retry = {"max_attempts": 3, "backoff_s": backoff, "on": [4, "timeout"]}
        return Planned({"shell": "exit 3", "retry": retry}, "exit_code")
    if kind == "missing":
        return Planned({"argv": ["/no/such/program"]}, "spawn")
    shown = "yes" if kind == "shows" else "no"
    return Planned({"argv": ["echo", shown], "expect": [{"contains": "yes"}]},
                   None if kind == "shows" else "unverified")


def draw(chance, half, hook, command):
    """A job that waits for no other one."""
    job = behaviour(chance)
    spec = job.spec
    spec["labels"] = {"half": half}
    names = list(QUEUES)
    spec["queue"] = chance.choices(names, [QUEUES[name][0] for name in names])[0]
    if chance.random() < 0.2:
        spec["priority"] = chance.randint(-2, 2)
    if chance.random() < 0.04:
        spec["delay_s"] = round(chance.uniform(0.05, 20), 3)
    elif chance.random() < 0.02:
        at = time.time() + chance.uniform(-10, 30)
        spec["run_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    # The order within `single` is then by priority and number alone.
    if spec["queue"] != "single" and chance.random() < 0.05:
        key = 0 if chance.random() < 0.2 else chance.randrange(KEYS)
        spec["exclusive"] = f"key-{key}"
    if chance.random() < 0.03:
        spec["notify"] = [{"on": ["running", "succeeded", "failed"], "url": hook}]
    elif chance.random() < 0.002:
        spec["notify"] = [{"on": ["succeeded", "failed"], "argv": command}]
    return job


def group(chance, new, first):
    """Jobs that belong together: one alone, a chain, or a fan with its join. `first` is the first's index."""
    shape = chance.choices(["alone", "chain", "fan"], [70, 20, 10])[0]
    if shape == "alone":
        return [new()]
    if shape == "chain":
        jobs = [new() for _ in range(chance.randint(2, 6))]
        for nth, job in enumerate(jobs[1:]):
            job.after = [(first + nth, chance.choices(STAGES, [3, 1])[0])]
        return jobs
    leaves = [new() for _ in range(chance.randint(2, 12))]
    root, join = new(), new()
    for leaf in leaves:
        leaf.after = [(first, chance.choices(STAGES, [3, 1])[0])]
    on = chance.choice(STAGES)
    join.after = [(first + 1 + nth, on) for nth in range(len(leaves))]
    return [root, *leaves, join]


def batches(seed, count, size, hook, command):
    """Lists of about `size` jobs, `count` in all, each settled; the first half of all has its own label."""
    chance, planned = random.Random(seed), []
    while len(planned) < count:
        start = len(planned)
        while len(planned) < min(start + size, count):
            half = "first" if len(planned) < count // 2 else "second"
            jobs = group(chance, lambda: draw(chance, half, hook, command), len(planned))
            for job in jobs[:count - len(planned)]:
                # A label follows the index, so that each half is a half.
                job.spec["labels"]["half"] = "first" if len(planned) < count // 2 else "second"
                job.after = [(index, on) for index, on in job.after if index < len(planned)]
                job.settle(planned)
                planned.append(job)
        yield planned[start:]


def new_job(job, start):
    """The NewJob of a batch that begins at this index."""
    if not job.after:
        return job.spec
    return {**job.spec, "after": [{"job": f"#{index - start}", "on": on} for index, on in job.after]}
