import subprocess
import sys
import uuid

from eventstreams import ids


def test_ids_are_random_uuids_without_repetition() -> None:
    made = [ids.new_id() for _ in range(5 * ids.AT_ONCE)]

    assert len(set(made)) == len(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_ids_of_a_forked_process_are_others() -> None:
    program = (
        "import os; from eventstreams.ids import new_id; new_id(); child = os.fork(); print(new_id(), flush=True);"
        "child and os.waitpid(child, 0)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    ).stdout

    assert len(set(told.split())) == 2
