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
    # One write each: lines that are printed unbuffered may come apart.
    program = (
        "import os; from eventstreams.ids import new_id; new_id(); child = os.fork();"
        "os.write(1, new_id().encode() + b'\\n'); child and os.waitpid(child, 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert len(set(done.stdout.split())) == 2
