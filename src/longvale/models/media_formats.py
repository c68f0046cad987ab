"""What the media reader opens: the demuxers of FFmpeg, and the names of the files that they read."""

from __future__ import annotations

#: Suffixes of video files by the demuxer that reads them. Left out are demuxers that follow a file's text to other
#: files or to the network (concat, hls, dash, ...) and those that draw text or single images.
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

#: Those of files that hold sound alone.
_AUDIO = "wav,mp3,aac,ac3,flac,aiff,amr,caf,w64"

#: FFmpeg's `format_whitelist`.
DEMUXERS = ",".join((*_VIDEO, _AUDIO))

#: Suffixes by which the videos of a folder are known, in lower case; names are compared without case.
VIDEO_SUFFIXES = tuple(suffix for suffixes in _VIDEO.values() for suffix in suffixes.split())
