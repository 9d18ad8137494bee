"""The window and the states of one follower."""

from quorate.consensus.raft.progress import Progress, ProgressState


def test_window_counts_messages_and_bytes_until_they_are_acknowledged() -> None:
    progress = Progress(1)
    progress.become_replicate()
    progress.sent(3, 30)
    progress.sent(5, 20)
    assert (progress.next_index, len(progress.inflights), progress.inflight_bytes) == (6, 2, 50)
    progress.free_to(4)
    assert (len(progress.inflights), progress.inflight_bytes) == (1, 20)
    progress.free_first()
    progress.free_first()
    assert (len(progress.inflights), progress.inflight_bytes) == (0, 0)


def test_old_acknowledgement_does_not_move_anything_back() -> None:
    progress = Progress(1)
    assert progress.maybe_advance(4)
    assert not progress.maybe_advance(3)
    assert (progress.match_index, progress.next_index) == (4, 5)


def test_probing_never_goes_below_what_is_known_to_match() -> None:
    progress = Progress(1)
    progress.maybe_advance(4)
    progress.sent(9, 1)
    progress.become_probe(2)
    assert (progress.state, progress.next_index, progress.inflight_bytes) == (ProgressState.PROBE, 5, 0)
