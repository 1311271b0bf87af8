import timm

from pyg_avig.commands.models import list_models


def test_every_model_has_a_row(capsys):
    list_models()
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert {*timm.list_models("attentionvig_*"), "sag_vit", "vig_tiny"} <= rows.keys()
    assert "12.3 M" in rows["attentionvig_s"]
    assert "1.65" in rows["attentionvig_s"]
    assert "images 3 x 224 x 224" in rows["attentionvig_s"]
    assert "images 3 x 32 x 32" in rows["attentionvig_nano"]
