"""How images are shown to the model under the published protocols."""

from recyclelora.data.protocol import ProtocolConfig, fitted


def test_fitted_sizes_by_hand():
    assert fitted((1024, 2048), (1024, 2048)) == (1024, 2048)
    assert fitted((1500, 2000), (1024, 2048)) == (1024, 1365)  # the short edge decides
    assert fitted((2000, 1500), (1024, 2048)) == (1365, 1024)  # upright images too
    assert fitted((600, 2400), (1024, 2048)) == (512, 2048)  # the long edge decides
    assert fitted((480, 640), (512, 1024)) == (512, 683)  # small images are enlarged


def shipped(make_config, name: str) -> ProtocolConfig:
    return make_config(f"data/protocol={name}").data.protocol


def test_the_published_protocols(make_config):
    ours, rein = shipped(make_config, "recyclelora"), shipped(make_config, "rein")
    assert (ours.window, ours.stride, rein.window, rein.stride) == (512, 341, 512, 341)
    assert ours.shown_size("cityscapes", (1024, 2048)) == (1024, 2048)
    assert rein.shown_size("cityscapes", (1024, 2048)) == (512, 1024)
    for protocol in (ours, rein):
        assert protocol.shown_size("bdd100k", (720, 1280)) == (720, 1280)
        assert protocol.shown_size("acdc", (1080, 1920)) == (1080, 1920)
        assert protocol.half == ["mapillary"]
    # a Mapillary image of 4000x3000 becomes 2000x1500, then as large as fits
    assert ours.shown_size("mapillary", (1500, 2000)) == (1024, 1365)
    assert rein.shown_size("mapillary", (1500, 2000)) == (512, 683)
    large = shipped(make_config, "crop1024")
    assert (large.window, large.stride, large.half) == (1024, 683, [])
