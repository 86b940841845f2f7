"""Composing media: cross-fades, exact cuts, stitching, guides, analysis. Streaming, with bounded memory."""
