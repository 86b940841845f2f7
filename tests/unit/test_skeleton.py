"""People as joints: drawn in OpenPose's colours, led from one pose to another, told as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from Wan2GP.drawing.skeleton import (
    COLOURS,
    JOINTS,
    LIMBS,
    Joint,
    Skeleton,
    draw_skeletons,
    from_json,
    interpolated,
    interpolated_people,
    limb_colour,
    to_json,
)
from Wan2GP.errors import InvalidInput

SIZE = (512, 512)


def standing(x: float = 256, confidence: float = 1.0) -> Skeleton:
    """A figure with its arms stretched out, as if seen from the front."""
    places = {
        "nose": (0, 80), "right_eye": (-12, 68), "left_eye": (12, 68), "right_ear": (-28, 74), "left_ear": (28, 74),
        "neck": (0, 130),
        "right_shoulder": (-50, 130), "right_elbow": (-110, 150), "right_wrist": (-170, 130),
        "left_shoulder": (50, 130), "left_elbow": (110, 150), "left_wrist": (170, 130),
        "right_hip": (-30, 280), "right_knee": (-36, 370), "right_ankle": (-40, 460),
        "left_hip": (30, 280), "left_knee": (36, 370), "left_ankle": (40, 460),
    }  # fmt: skip
    return Skeleton({name: Joint(x + dx, y, confidence) for name, (dx, y) in places.items()})


def test_there_are_18_joints_and_17_limbs_each_of_its_own_colour() -> None:
    assert len(JOINTS) == len(set(COLOURS.values())) == 18 and len(LIMBS) == 17
    assert {name for limb in LIMBS for name in limb} == set(JOINTS)
    told = ("nose", "neck", "right_wrist", "left_wrist", "left_ankle", "left_ear")
    assert [COLOURS[name] for name in told] == [
        (255, 0, 0), (255, 85, 0), (170, 255, 0), (0, 255, 85), (85, 0, 255), (255, 0, 85),
    ]  # fmt: skip
    assert limb_colour(0) == (153, 0, 0) and limb_colour(12) == (0, 0, 153) and limb_colour(16) == (153, 0, 102)


def test_joints_and_limbs_are_drawn_in_exactly_their_colours() -> None:
    person = standing()
    drawn = draw_skeletons([person], SIZE)
    assert drawn.shape == (512, 512, 3) and drawn.dtype == np.uint8
    for name, joint in person.joints.items():
        assert tuple(drawn[int(joint.y), int(joint.x)]) == COLOURS[name], name
    for number, (first, second) in enumerate(LIMBS):
        a, b = person.joints[first], person.joints[second]
        middle = tuple(drawn[int((a.y + b.y) / 2), int((a.x + b.x) / 2)])
        assert middle == limb_colour(number), (first, second)
    colours = {tuple(map(int, colour)) for colour in np.unique(drawn.reshape(-1, 3), axis=0)}
    assert colours <= {(0, 0, 0), *COLOURS.values(), *(limb_colour(number) for number in range(17))}


def test_what_is_not_sure_or_not_in_the_picture_is_not_drawn() -> None:
    person = standing()
    whole = draw_skeletons([person], SIZE)
    joints = dict(person.joints) | {"right_wrist": Joint(86, 130, 0.49), "left_wrist": Joint(600, 130)}
    drawn = draw_skeletons([Skeleton(joints)], SIZE)
    changed = np.argwhere((drawn != whole).any(axis=2))
    assert changed[:, 1].min() < 100 and changed[:, 1].max() > 410, "both wrists and lower arms are gone"
    assert not ((changed[:, 1] > 150) & (changed[:, 1] < 360)).any(), "and nothing else"
    assert not draw_skeletons([standing(confidence=0.4)], SIZE).any()
    assert draw_skeletons([standing(confidence=0.4)], SIZE, drawn_from=0.3).any()
    assert not draw_skeletons([], (33, 17)).any()


def test_several_people_stand_beside_each_other() -> None:
    left, right = standing(190), standing(322 + 500)
    both = draw_skeletons([left, right], (1024, 512))
    assert np.array_equal(both[:, :500], draw_skeletons([left], (1024, 512))[:, :500])
    assert np.array_equal(both[:, 500:], draw_skeletons([right], (1024, 512))[:, 500:])


def test_lines_are_thinner_in_small_pictures() -> None:
    def breadth(side: int) -> int:
        small = standing().scaled(side / 512, side / 512)
        return int(draw_skeletons([small], (side, side))[round(325 * side / 512)].any(axis=1).sum())

    assert breadth(512) == breadth(1024) > breadth(256) > breadth(64) > 0


def test_a_pose_is_led_to_another_along_straight_lines() -> None:
    first, second = standing(200), standing(300)
    for share in (0.0, 0.25, 1.0):
        between = interpolated(first, second, share)
        assert {name: joint.x for name, joint in between.joints.items()} == pytest.approx(
            {name: joint.x + 100 * share for name, joint in first.joints.items()}
        )


def test_a_joint_that_one_pose_lacks_stays_and_fades() -> None:
    whole = standing()
    without = Skeleton({name: each for name, each in whole.joints.items() if name != "left_wrist"})
    unseen = Skeleton(dict(whole.joints) | {"left_wrist": Joint(0, 0, 0.05)})
    wrist = whole.joints["left_wrist"]
    for other in (without, unseen):
        fading = interpolated(whole, other, 0.25).joints["left_wrist"]
        rising = interpolated(other, whole, 0.25).joints["left_wrist"]
        assert (fading.x, fading.y, fading.confidence) == (wrist.x, wrist.y, 0.75)
        assert (rising.x, rising.y, rising.confidence) == (wrist.x, wrist.y, 0.25)


def test_each_person_is_led_to_the_nearest_and_who_has_none_fades() -> None:
    first, second = [standing(100), standing(400)], [standing(420), standing(130), standing(900)]
    people = interpolated_people(first, second, 0.5)
    assert [each.joints["nose"].x for each in people] == [115, 410, 900]
    assert [each.joints["nose"].confidence for each in people] == [1, 1, 0.5]


def test_json_brings_the_same_people_back() -> None:
    people = (standing(100), Skeleton({"nose": Joint(1.5, 2.25, 0.125)}))
    told = json.loads(json.dumps(to_json(people, SIZE)))
    assert told["people"][1] == {"joints": {"nose": [1.5, 2.25, 0.125]}}
    assert from_json(told) == (people, SIZE)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"width": 1, "height": 1, "people": [{}]},
        {"width": 1, "height": 1, "people": [{"joints": {"nose": [1, 2, 3, 4]}}]},
        {"width": 1, "height": 1, "people": [{"joints": {"tail": [1, 2, 0.5]}}]},
    ],
)
def test_what_is_no_such_json_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="joint"):
        from_json(told)
