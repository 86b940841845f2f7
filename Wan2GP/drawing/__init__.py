"""Control pictures out of frames: skeletons, edges, scribbles, motion, greys. No torch, nothing of ours but the media.

Each is drawn in one place alone: for the models of the queue, for the letters of `video_prompt_type`, for structure
guidance.
Arrays are RGB, (H, W, 3), uint8.
"""
