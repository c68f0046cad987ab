"""Formats of the media reader: FFmpeg demuxers and file suffixes."""

from __future__ import annotations

#: FFmpeg demuxer -> suffixes of its video files. Excluded are demuxers that open other files or the network as the text
#: of a file directs (concat, hls, dash, ...), and those that render text or single images.
_VIDEO = {
    "mov": ".mp4 .mov .m4v .qt .3gp .3g2 .f4v .mj2",
    "matroska,webm": ".mkv .webm .mk3d",
    "avi": ".avi .divx",
    "mpegts": ".ts .mts .m2ts .m2t .trp .tp",
    "mpeg": ".mpg .mpeg .mpe .m2p .ps .vob .mod .tod",
    "flv": ".flv",
    "asf": ".wmv .asf",
    "ogg": ".ogv .ogm .ogx",
    "rm": ".rm .rmvb",
    "mxf": ".mxf",
    "nut": ".nut",
    "dv": ".dv .dif",
}

#: Demuxers of files that contain only sound.
_AUDIO = "wav,mp3,aac,ac3,flac,aiff,amr,caf,w64"

#: FFmpeg's `format_whitelist`.
DEMUXERS = ",".join((*_VIDEO, _AUDIO))

#: Suffixes of video files in a folder, in lower case; names are compared without case.
VIDEO_SUFFIXES = tuple(suffix for suffixes in _VIDEO.values() for suffix in suffixes.split())
