import pytest

from pyg_avig.train.parser_errors import reason_of


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Option 'foo' is not accepted", "Option 'foo' is not accepted"),
        (
            """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'pytorch_lightning.core.datamodule.LightningDataModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'pyg_avig.data.Digits':
        Parser key "batch_size":
          Expected a <class 'int'>. Got value: many
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='batch_size', val='many')""",
            "data: pyg_avig.data.Digits: batch_size: expected int (got many)",
        ),
        (
            """Parser key "trainer.detect_anomaly":
  Does not validate against any of the Union subtypes
  Errors:
    - Expected a <class 'bool'>
    - Expected a <class 'int'>
  Given value type: <class 'str'>
  Given value: maybe""",
            "trainer.detect_anomaly: expected bool or int (got maybe)",
        ),
    ],
)
def test_the_key_what_it_takes_and_what_came(message, reason):
    assert reason_of(message) == reason
