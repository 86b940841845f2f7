"""An upstream Wan2GP checkout as the engine: in an interpreter of its own, behind the same seam as ours."""
