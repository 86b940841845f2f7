"""The people of a control video or image: drawn as OpenPose does, or told as JSON. No torch here."""

from __future__ import annotations

import json

from Wan2GP.definitions import ModelDefinition
from Wan2GP.drawing.skeleton import Skeleton, draw_skeletons, to_json
from Wan2GP.engine.control.blazepose import BlazePose
from Wan2GP.engine.control.models import ControlModel, given_frames
from Wan2GP.engine.families import Cancel, Place, Report
from Wan2GP.engine.request import Frame, GenerationRequest
from Wan2GP.errors import InvalidInput, Unsupported
from Wan2GP.wheel_files import checked

#: the files of the two networks
DETECTOR, LANDMARKS = "pose_detection.tflite", "pose_landmark_full.tflite"


class Pose(ControlModel):
    """Skeletons on black."""

    def __init__(self, definition: ModelDefinition, place: Place, report: Report) -> None:
        """Load the two networks. Raises ModelUnavailable for files that are not those which were published."""
        super().__init__(definition, place, report)
        report("loading", 0, 1)
        folder = checked(definition, place.checkpoints)
        self._networks: BlazePose | None = BlazePose(folder / DETECTOR, folder / LANDMARKS)
        report("loading", 1, 1)

    def people(self, frame: Frame, size: tuple[int, int]) -> tuple[Skeleton, ...]:
        """Who is in a frame; joints in pixels of a picture of `size` = (width, height)."""
        assert self._networks is not None, "released"
        height, width = frame.shape[:2]
        return tuple(each.scaled(size[0] / width, size[1] / height) for each in self._networks.people(frame))

    def picture(self, frame: Frame, size: tuple[int, int]) -> Frame:
        """People are looked for at the frame's own size, and drawn at the one asked for."""
        return draw_skeletons(self.people(frame, size), size)

    def release(self) -> None:
        """Let go of the networks."""
        self._networks = None


class PoseJoints(Pose):
    """The joints of the people in an image, or in the first frame of a video, as JSON."""

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput without an image or a video, Unsupported for more than one answer."""
        given = [each for each in (request.image_guide, request.video_guide) if each is not None]
        if len(given) != 1:
            raise InvalidInput("give one of image_guide and video_guide", field="image_guide")
        if set(request.video_prompt_type) - {"V"}:
            raise Unsupported(f"{request.definition.id} knows the letter V alone", field="video_prompt_type")

    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> str:
        """{"width", "height", "people": [{"joints": {name: [x, y, confidence]}}]}, in pixels of what was given."""
        cancel.raise_if_requested()
        report("encoding", 0, 1)
        frame = next(iter(given_frames(request)))
        size = frame.shape[1], frame.shape[0]
        people = self.people(frame, size)
        report("encoding", 1, 1)
        return json.dumps(to_json(people, size))
