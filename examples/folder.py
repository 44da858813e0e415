"""Attack a folder of lab images, judge the run by a classifier that was never attacked, and write its page."""

import sys
from pathlib import Path

from attnshift import AttackSettings, attack_folder, evaluate_run, load_recipe, open_run, write_report
from attnshift.lab.export import export_images

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/folder")
labels = export_images(out / "images", seed=0, split="test", count=8)
settings = AttackSettings(
    images=out / "images",
    labels=labels,
    pipeline="lab",
    surrogates=["lab:resnet", "lab:mobilevit"],
    recipe=load_recipe("quick"),
    out=out / "run",
)
store = attack_folder(settings)
evaluate_run(store, ["lab:coatnet"])

verdicts = [row for row in open_run(settings.out).verdicts if row.arm == "attack" and row.role == "judge"]
for row in verdicts:
    print(f"{row.id}: success on {row.classifier}: {row.success}")
print(f"open {write_report(store)}")
