"""The classes of Mapillary Vistas v1.2 and v2.0 by id, as its ``config_*.json`` name them, and their train ids."""

from __future__ import annotations

_V12 = """
animal--bird animal--ground-animal construction--barrier--curb construction--barrier--fence
construction--barrier--guard-rail construction--barrier--other-barrier construction--barrier--wall
construction--flat--bike-lane construction--flat--crosswalk-plain construction--flat--curb-cut
construction--flat--parking construction--flat--pedestrian-area construction--flat--rail-track
construction--flat--road construction--flat--service-lane construction--flat--sidewalk construction--structure--bridge
construction--structure--building construction--structure--tunnel human--person human--rider--bicyclist
human--rider--motorcyclist human--rider--other-rider marking--crosswalk-zebra marking--general nature--mountain
nature--sand nature--sky nature--snow nature--terrain nature--vegetation nature--water object--banner object--bench
object--bike-rack object--billboard object--catch-basin object--cctv-camera object--fire-hydrant object--junction-box
object--mailbox object--manhole object--phone-booth object--pothole object--street-light object--support--pole
object--support--traffic-sign-frame object--support--utility-pole object--traffic-light object--traffic-sign--back
object--traffic-sign--front object--trash-can object--vehicle--bicycle object--vehicle--boat object--vehicle--bus
object--vehicle--car object--vehicle--caravan object--vehicle--motorcycle object--vehicle--on-rails
object--vehicle--other-vehicle object--vehicle--trailer object--vehicle--truck object--vehicle--wheeled-slow
void--car-mount void--ego-vehicle void--unlabeled
"""

_V20 = """
animal--bird animal--ground-animal construction--barrier--ambiguous construction--barrier--concrete-block
construction--barrier--curb construction--barrier--fence construction--barrier--guard-rail
construction--barrier--other-barrier construction--barrier--road-median construction--barrier--road-side
construction--barrier--separator construction--barrier--temporary construction--barrier--wall
construction--flat--bike-lane construction--flat--crosswalk-plain construction--flat--curb-cut
construction--flat--driveway construction--flat--parking construction--flat--parking-aisle
construction--flat--pedestrian-area construction--flat--rail-track construction--flat--road
construction--flat--road-shoulder construction--flat--service-lane construction--flat--sidewalk
construction--flat--traffic-island construction--structure--bridge construction--structure--building
construction--structure--garage construction--structure--tunnel human--person--individual human--person--person-group
human--rider--bicyclist human--rider--motorcyclist human--rider--other-rider marking--continuous--dashed
marking--continuous--solid marking--continuous--zigzag marking--discrete--ambiguous marking--discrete--arrow--left
marking--discrete--arrow--other marking--discrete--arrow--right marking--discrete--arrow--split-left-or-straight
marking--discrete--arrow--split-right-or-straight marking--discrete--arrow--straight
marking--discrete--crosswalk-zebra marking--discrete--give-way-row marking--discrete--give-way-single
marking--discrete--hatched--chevron marking--discrete--hatched--diagonal marking--discrete--other-marking
marking--discrete--stop-line marking--discrete--symbol--bicycle marking--discrete--symbol--other
marking--discrete--text marking-only--continuous--dashed marking-only--discrete--crosswalk-zebra
marking-only--discrete--other-marking marking-only--discrete--text nature--mountain nature--sand nature--sky
nature--snow nature--terrain nature--vegetation nature--water object--banner object--bench object--bike-rack
object--catch-basin object--cctv-camera object--fire-hydrant object--junction-box object--mailbox object--manhole
object--parking-meter object--phone-booth object--pothole object--sign--advertisement object--sign--ambiguous
object--sign--back object--sign--information object--sign--other object--sign--store object--street-light
object--support--pole object--support--pole-group object--support--traffic-sign-frame object--support--utility-pole
object--traffic-cone object--traffic-light--general-single object--traffic-light--pedestrians
object--traffic-light--general-upright object--traffic-light--general-horizontal object--traffic-light--cyclists
object--traffic-light--other object--traffic-sign--ambiguous object--traffic-sign--back
object--traffic-sign--direction-back object--traffic-sign--direction-front object--traffic-sign--front
object--traffic-sign--information-parking object--traffic-sign--temporary-back object--traffic-sign--temporary-front
object--trash-can object--vehicle--bicycle object--vehicle--boat object--vehicle--bus object--vehicle--car
object--vehicle--caravan object--vehicle--motorcycle object--vehicle--on-rails object--vehicle--other-vehicle
object--vehicle--trailer object--vehicle--truck object--vehicle--vehicle-group object--vehicle--wheeled-slow
object--water-valve void--car-mount void--dynamic void--ego-vehicle void--ground void--static void--unlabeled
"""

V12_NAMES = _V12.split()
"""v1.2's 66 names."""

V20_NAMES = _V20.split()
"""v2.0's 124 names."""

V12_IDS = {
    2: 1, 3: 4, 6: 3, 7: 0, 8: 0, 9: 1, 10: 0, 11: 1, 13: 0, 14: 0, 15: 1, 17: 2, 19: 11, 20: 12, 21: 12, 22: 12, 23: 0,
    24: 0, 27: 10, 29: 9, 30: 8, 44: 5, 45: 5, 46: 7, 47: 5, 48: 6, 49: 7, 50: 7, 52: 18, 54: 15, 55: 13, 57: 17,
    58: 16, 61: 14,
}  # fmt: skip
"""v1.2's ids to the 19 train ids."""

V20_IDS = {
    4: 1, 5: 4, 12: 3, 13: 0, 14: 0, 15: 1, 17: 0, 18: 0, 19: 1, 21: 0, 23: 0, 24: 1, 27: 2, 30: 11, 32: 12, 33: 12,
    34: 12, **dict.fromkeys(range(35, 59), 0), 61: 10, 63: 9, 64: 8, 80: 7, 84: 5, 85: 5, 86: 5, 87: 7, 88: 5,
    **dict.fromkeys(range(90, 96), 6), **dict.fromkeys(range(96, 104), 7), 105: 18, 107: 15, 108: 13, 110: 17, 111: 16,
    114: 14,
}  # fmt: skip
"""v2.0's ids to the 19 train ids."""
