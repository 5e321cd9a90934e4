"""The benchmark asks about a new image in every round; speed itself is never asserted."""

from benchmarks.latency import answer_milliseconds


def test_every_round_is_another_image():
    class Recorder:
        def __init__(self):
            self.asked = []

        def answer(self, image, question):
            self.asked.append((image.tobytes(), question))

    recorder = Recorder()
    found = answer_milliseconds(recorder, 4)
    assert len(found) == 4 and found == sorted(found) and found[0] > 0
    assert len({image for image, _ in recorder.asked}) == 5 and all(
        question for _, question in recorder.asked
    )
