"""Audio: codecs, buffers, playback, voice activity and the clock that paces them."""
