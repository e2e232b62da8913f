"""Each command parses, calls the function that it stands for, and reports. The slow functions are stood in for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trained import write_trained_folder
from typer.testing import CliRunner, Result

import nnduet
from nnduet.cli import app, main
from nnduet.datasets.phantom import write_phantom
from nnduet.errors import ModelError, PartialFailureError
from nnduet.evaluation.stored_metrics import Metrics
from nnduet.process import SPINS
from nnduet.schema import Workspace

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
METRICS = Metrics()
TRAINED = SimpleNamespace(model="M", metrics_file="metrics.json", metrics=METRICS, notes=(), to_json=dict)


class Recorder:
    """Stands in for a function of the package and keeps what it was called with."""

    def __init__(self, returns: Any = None, raises: Exception | None = None) -> None:
        self.returns, self.raises = returns, raises
        self.arguments: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.arguments, self.options = arguments, options
        if callable(options.get("progress")):
            options["progress"](1, 1, "step")
        if self.raises:
            raise self.raises
        return self.returns


@pytest.fixture(autouse=True)
def _clean_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.setenv(name, "restored afterwards")
        monkeypatch.delenv(name)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``stand_in("nnduet.training.run", train=recorder)`` puts a light module in the place of a heavy one."""

    def replace(module: str, **names: Any) -> None:
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**names))

    return replace


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _summary(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(to_json=lambda: values, **values)


def _json(result: Result) -> Any:
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "phantom"
    write_phantom(folder, num_train=6, num_validation=3, num_test=3, seed=1, size=(12, 32, 36))
    return folder


@pytest.mark.slow
def test_help_comes_within_half_a_second() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE"))}
    environment["PYTHONPATH"] = str(Path(nnduet.__file__).parent.parent)
    command = [sys.executable, "-c", "from nnduet.cli import main; main()", "--help"]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert "plugin-path" in done.stdout
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("given", "expected"), [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_threads_wait_briefly_unless_the_user_says_how(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what main sets is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["nnduet", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_version_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"version of {name}")
    assert _run("--version").stdout == "version of nnduet\n"


@pytest.mark.parametrize("command", ["", *(command.name for command in app.registered_commands)])
def test_row_113_every_command_knows_h_q_and_v(command: str) -> None:
    arguments = [command] if command else []
    text = _run(*arguments, "-h").stdout
    assert text == _run(*arguments, "--help").stdout
    assert all(option in text for option in ("-h, --help", "-q, --quiet", "-v, --verbose"))


def test_row_112_the_remedy_of_a_setting_names_the_command_that_is_running(tmp_path: Path) -> None:
    result = _run("convert", tmp_path, "--dataset-id", 3, "--name", "D", "--labels", "ED=a")
    assert result.stderr.splitlines()[-1] == "what helps: `nnduet convert --help` lists the options and what they take"


def test_row_113_the_shell_completes_commands_options_and_choices() -> None:
    def complete(words: str, number: int) -> list[str]:
        variables = {"_NNDUET_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        return CliRunner().invoke(app, [], env=variables, prog_name="nnduet").stdout.split()

    assert sorted(complete("nnduet pr", 1)) == ["predict", "preview", "probe"]
    assert "--folds" in complete("nnduet predict --fo", 2)
    assert complete("nnduet plan 1 --preset ", 4) == ["resenc-m", "resenc-l", "cpu"]
    assert "--show-completion" in _run("--help").stdout


@pytest.mark.parametrize(
    "options", [("--folds", "0,1"), ("--fold", "0,1"), ("--fold", "0", "--fold", "1"), ("--folds", "0", "--fold", "1,0")]
)
def test_row_113_folds_are_named_alike_in_every_command_that_takes_several(
    options: tuple[str, ...], stand_in: Callable[..., None], tmp_path: Path
) -> None:
    load = Recorder("predictor")
    _predict(stand_in, load, Recorder(_predicted()), *options)
    assert load.arguments == (".", [0, 1])
    recorder = Recorder(TRAINED)
    stand_in("nnduet.training.cross_validation", cross_validate=recorder)
    _run("cross-validate", 7, *options)
    assert recorder.options["folds"] == [0, 1]
    for command, module, name in (("fit-head", "refitting", "refit_heads"), ("probe", "probing", "probe_model")):
        recorder = Recorder(_summary(rows=[], means=(), output="o"))
        stand_in(f"nnduet.training.{module}", **{name: recorder})
        assert _run(command, ".", *options).exit_code == 0
        assert recorder.options["folds"] == [0, 1]
    recorder = Recorder({"file": "f", "bytes": 1, "folds": ["0"]})
    stand_in("nnduet.runtimes.export", export_model=recorder, import_stock_model=recorder)
    for command in ("export", "import"):
        assert _run(command, ".", "t.nnduet", *options).exit_code == 0
        assert recorder.arguments[2] == ["0", "1"]


@pytest.mark.parametrize("option", ["--fold", "--folds"])
def test_row_113_a_command_of_one_fold_takes_it_by_both_names(option: str, stand_in: Callable[..., None]) -> None:
    train = Recorder(TRAINED)
    stand_in("nnduet.training.planning", plans_name_of=str)
    stand_in("nnduet.training.run", train=train)
    _run("train", 7, option, "all")
    assert train.arguments == (7, "3d_fullres", "all")
    refused = _run("train", 7, option, "0,1")
    assert refused.exit_code == 2
    assert "nnduet cross-validate --folds 0,1" in " ".join(refused.stderr.split())
    assert _run("evaluate", "-p", ".", "--dataset-id", 7, option, "first").exit_code == 2


def test_convert_reads_the_challenge_layout(phantom: Path, tmp_path: Path) -> None:
    result = _run("convert", phantom, "--layout", "subtype-folders", "--dataset-id", 7, "--name", "Phantom", "--json")
    assert result.exit_code == 0, result.stderr
    assert _json(result)["num_cases"] == 9
    assert (tmp_path / "nnduet_data/nnUNet_raw/Dataset007_Phantom/dataset.json").is_file()
    assert f"using {tmp_path / 'nnduet_data'}" in result.stderr


def test_convert_dry_run_writes_nothing(phantom: Path, tmp_path: Path) -> None:
    result = _run("convert", phantom, "--layout", "subtype-folders", "--dataset-id", 7, "--name", "P", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "num_cases" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_convert_passes_only_the_options_that_were_given(stand_in: Callable[..., None], tmp_path: Path) -> None:
    read, write = Recorder("source"), Recorder(_summary(dataset="D"))
    stand_in("nnduet.datasets.layouts", read_folder=read)
    stand_in("nnduet.datasets.conversion", convert=write)
    result = _run(
        *("convert", tmp_path, "--dataset-id", 3, "--name", "D", "--task", "grade:ordinal", "--task", "age"),
        *("--covariate", "height", "--table", "t.csv", "--replace", "--workspace", tmp_path / "ws", "--map-label", "255=1"),
    )
    assert result.exit_code == 0, result.stderr
    given = {"table": Path("t.csv"), "covariates": ["height"]}
    assert read.options == {"task_specs": ["grade:ordinal", "age"], "label_map": {255: 1}, **given}
    assert write.arguments == ("source",)
    assert write.options["workspace"].raw == tmp_path / "ws" / "nnUNet_raw"
    assert write.options["replace"] is True


def test_row_104_convert_passes_over_rows_of_other_cases_where_it_is_asked_to(
    stand_in: Callable[..., None], tmp_path: Path
) -> None:
    read = Recorder("source")
    stand_in("nnduet.datasets.layouts", read_folder=read)
    stand_in("nnduet.datasets.conversion", convert=Recorder(_summary(dataset="D")))
    result = _run("convert", tmp_path, "--dataset-id", 3, "--name", "D", "--task", "grade", "--ignore-extra-rows")
    assert result.exit_code == 0, result.stderr
    assert read.options == {"task_specs": ["grade"], "label_map": None, "ignore_extra_rows": True}


@pytest.mark.parametrize(
    ("module", "name", "command"),
    [
        ("nnduet.training.refitting", "refit_heads", ("fit-head", ".")),
        ("nnduet.training.probing", "probe_model", ("probe", ".")),
        ("nnduet.evaluation.evaluate", "evaluate", ("evaluate", "-p", ".", "--dataset-json", "d.json")),
    ],
)
def test_row_76_the_column_of_case_ids_is_named_as_in_convert(
    stand_in: Callable[..., None], tmp_path: Path, module: str, name: str, command: tuple[str, ...]
) -> None:
    (tmp_path / "t.csv").touch()
    (tmp_path / "d.json").write_text('{"labels": {"background": 0, "organ": 1}}')
    called = Recorder(raises=RuntimeError("called"))
    stand_in(module, **{name: called})
    _run(*command, "--table", "t.csv", "--id-column", "image")
    assert (called.options["table"], called.options["id_column"]) == (Path("t.csv"), "image")


@pytest.mark.parametrize(
    ("values", "expected"),
    [(["masks"], Path("masks")), (["ED=a", "ES=b"], {"ED": Path("cases/a"), "ES": Path("cases/b")})],
)
def test_convert_takes_a_folder_of_masks_or_several_by_name(
    stand_in: Callable[..., None], tmp_path: Path, values: list[str], expected: object
) -> None:
    read = Recorder("source")
    stand_in("nnduet.datasets.layouts", read_folder=read)
    stand_in("nnduet.datasets.conversion", convert=Recorder(_summary(dataset="D")))
    (tmp_path / "cases").mkdir()
    options = [part for value in values for part in ("--labels", value)]
    result = _run("convert", "cases", "--dataset-id", 3, "--name", "D", *options)
    assert result.exit_code == 0, result.stderr
    assert read.options == {"task_specs": (), "label_map": None, "labels": expected}


def test_convert_refuses_a_single_named_folder_of_masks(tmp_path: Path) -> None:
    result = _run("convert", tmp_path, "--dataset-id", 3, "--name", "D", "--labels", "ED=a")
    assert result.exit_code == 1
    assert result.stderr.startswith("SETTINGS: named masks: expected at least two")


def test_convert_refuses_a_label_map_that_is_no_pair_of_numbers(tmp_path: Path) -> None:
    result = _run("convert", tmp_path, "--dataset-id", 3, "--name", "D", "--map-label", "255")
    assert result.exit_code == 2
    assert "OLD=NEW" in result.stderr


def test_convert_refuses_table_options_for_subtype_folders(phantom: Path) -> None:
    result = _run("convert", phantom, "--layout", "subtype-folders", "--dataset-id", 7, "--name", "P", "--table", "t.csv")
    assert result.exit_code == 2
    assert "subtype-folders takes no other sources" in result.stderr


def test_plan_hands_over_preset_and_workspace(
    stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = Recorder(_summary(plans_name="P"))
    stand_in("nnduet.training.planning", plan=plan)
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / name))
    result = _run("plan", 7, "--preset", "cpu", "--num-processes", 2)
    assert result.exit_code == 0, result.stderr
    assert "not set" not in result.stderr
    assert plan.arguments == (7, "cpu")
    assert plan.options["workspace"] == Workspace(*(tmp_path / name for name in VARIABLES))
    assert plan.options["configurations"] is None  # two where nothing is planned, else those that are


def test_train_hands_over_its_options_and_shows_the_metrics(stand_in: Callable[..., None]) -> None:
    train = Recorder(_summary(model="M", metrics_file="F", metrics=METRICS, notes=()))
    stand_in("nnduet.training.run", train=train)
    result = _run("train", 7, "2d", "--fold", "all", "--epochs", 3, "--resume", "--device", "cpu", "--preset", "cpu")
    assert result.exit_code == 0, result.stderr
    assert train.arguments == (7, "2d", "all")
    assert {key: train.options[key] for key in ("plans_name", "epochs", "resume", "device")} == {
        "plans_name": "nnDuetCpuPlans",
        "epochs": 3,
        "resume": True,
        "device": "cpu",
    }
    assert "model    M" in result.stdout


def test_nnunet_variables_are_set_before_a_training_starts(stand_in: Callable[..., None], tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    def train(*_: Any, **__: Any) -> Any:
        seen.update({name: os.environ[name] for name in VARIABLES})
        return _summary(model="M", metrics_file="F", metrics=METRICS)

    stand_in("nnduet.training.run", train=train)
    stand_in("nnduet.training.planning", plans_name_of=None)
    _run("train", 7, "--workspace", tmp_path / "ws")
    assert seen == {name: str(tmp_path / "ws" / name) for name in VARIABLES}


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", 7, "--fold", "first"),
        ("train", 7, "--preset", "cpu", "--plans", "P"),
        ("train", 7, "--device", "tpu"),
        ("plan", 7, "--preset", "huge"),
        ("plan", 0),
        ("predict", "-i", ".", "-o", "o", "-m", ".", "--id-column", "name"),
        ("cross-validate", 7, "--folds", "0,all"),
        ("fit-head", "no such folder"),
        ("fit-head", ".", "--fold", "first"),
        ("evaluate", "-p", "."),
        ("evaluate", "-p", ".", "--dataset-id", 3, "--dataset-json", "d.json"),
    ],
)
def test_wrong_command_lines_exit_with_2(arguments: tuple[object, ...]) -> None:
    assert _run(*arguments).exit_code == 2


def _predict(stand_in: Callable[..., None], load: Recorder, run: Recorder, *more: object) -> Result:
    stand_in("nnduet.inference.predictor", Predictor=SimpleNamespace(load=load))
    stand_in("nnduet.inference.folder_runs", predict_folder=run)
    return _run("predict", "-i", ".", "-o", "out", "-m", ".", *more)


def test_predict_loads_the_model_and_runs_the_folder(stand_in: Callable[..., None]) -> None:
    load, run = Recorder("predictor"), Recorder(_predicted())
    result = _predict(stand_in, load, run, "--folds", "0,1", "--no-tta", "--step-size", 0.75, "--json")
    assert _json(result)["cases"] == ["a"]
    assert load.arguments == (".", [0, 1])
    assert load.options == {
        "device": "auto",
        "step_size": 0.75,
        "tta": False,
        "error_rate": 0.1,
        "runtime": "auto",
        "precision": "auto",
        "fast": False,
    }
    assert (run.options["covariates"], run.options["abstention"]) == (None, None)
    assert run.arguments == ("predictor", Path("."), Path("out"))
    assert "predict 1/1 step" in result.stderr


PREDICTOR = SimpleNamespace(tasks=(), model=SimpleNamespace(layout=SimpleNamespace(covariates=("height", "weight"))))


def _predicted(**values: Any) -> SimpleNamespace:
    plain = {"missing_covariates": {}, "abstention": [], "num_abstained": 0, "not_used": [], "answers": {}, "failed": {}}
    way = {"output": "out", "model": "m", "folds": ["0"], "runtime": "torch", "precision": "float32", "device": "cpu"}
    return _summary(**{"cases": ["a"], "seconds": {"a": 1.5}, **plain, **way, **values})


def test_predict_reads_the_covariates_of_the_model_and_says_what_is_missing(
    stand_in: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "cases.csv").write_text("name,height,other\na,1.5,x\nb,,y\n", encoding="utf-8")
    run = Recorder(_predicted(cases=["a", "b"], missing_covariates={"height": 1, "weight": 2}))
    result = _predict(stand_in, Recorder(PREDICTOR), run, "--covariates", "cases.csv", "--id-column", "name")
    assert result.exit_code == 0, result.stderr
    assert run.options["covariates"] == {"a": {"height": 1.5}, "b": {}}
    assert "covariate height: missing for 1 of 2 cases, which count as usual" in result.stderr


def test_predict_hands_over_error_rate_and_rules_and_says_how_many_cases_abstained(stand_in: Callable[..., None]) -> None:
    load, run = Recorder(PREDICTOR), Recorder(_predicted(abstention=["set>1", "outlier>0.99"], num_abstained=1))
    result = _predict(stand_in, load, run, "--error-rate", 0.05, "--abstain", "set>1", "--abstain", "outlier > 0.99")
    assert result.exit_code == 0, result.stderr
    assert load.options["error_rate"] == 0.05
    assert [str(rule) for rule in run.options["abstention"].rules] == ["set>1", "outlier>0.99"]
    assert "1 of 1 cases are left to a person (set>1, outlier>0.99)" in result.stderr


def test_predict_refuses_a_rule_before_it_loads_the_model(stand_in: Callable[..., None]) -> None:
    load = Recorder("predictor")
    result = _predict(stand_in, load, Recorder(_predicted()), "--abstain", "age>3")
    assert result.exit_code == 1
    assert result.stderr.startswith("SETTINGS: abstain: expected")
    assert load.arguments == ()


def test_the_help_of_predict_has_an_example_of_every_kind_of_option() -> None:
    text = _run("predict", "--help").stdout
    for example in ("--covariates cases.csv\n", "--error-rate 0.05", "--abstain 'confidence<0.6' --abstain 'outlier>0.99'\n"):
        assert example in text


def test_predict_takes_all_folds_and_tta_by_default(stand_in: Callable[..., None]) -> None:
    load = Recorder("predictor")
    _predict(stand_in, load, Recorder(_predicted()))
    assert load.arguments == (".", None)
    assert load.options["tta"] is True


def test_predict_exits_with_3_when_only_some_cases_failed(stand_in: Callable[..., None]) -> None:
    run = Recorder(raises=PartialFailureError("1 of 2 cases failed: b"))
    result = _predict(stand_in, Recorder("predictor"), run, "--json")
    assert result.exit_code == 3
    remedy = PartialFailureError.remedy
    assert _json(result) == {"error": {"code": "PARTIAL", "message": "1 of 2 cases failed: b", "remedy": remedy}}


def test_a_named_error_is_a_line_on_stderr_and_what_helps(stand_in: Callable[..., None]) -> None:
    result = _predict(stand_in, Recorder(raises=ModelError("no folds")), Recorder())
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"MODEL: no folds\nwhat helps: {ModelError.remedy}\n"


def test_evaluate_scores_a_converted_dataset_against_itself(phantom: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    converted = _run(
        *("convert", phantom, "--layout", "subtype-folders", "--dataset-id", 7, "--name", "P", "--workspace", workspace)
    )
    assert converted.exit_code == 0, converted.stderr
    masks = workspace / "nnUNet_raw/Dataset007_P/labelsTr"
    lines = (masks.parent / "classification_labels.csv").read_text().splitlines()[1:]
    rows = ["case_id,subtype,subtype_p_0,subtype_p_1,subtype_p_2"]
    for case_id, subtype in (line.split(",")[:2] for line in lines):
        rows.append(",".join([case_id, subtype, *("1" if subtype == known else "0" for known in "012")]))
    (masks / "classification.csv").write_text("\n".join(rows) + "\n")
    arguments = ("evaluate", "-p", masks, "--dataset-id", 7, "--fold", 0, "--workspace", workspace, "-o", tmp_path / "out")
    metrics = _json(_run(*arguments, "--json"))
    assert metrics["num_cases"] == 3
    assert metrics["segmentation"]["lesion"]["dsc"]["value"] == 1.0
    assert metrics["tasks"]["subtype"]["metrics"]["macro_f1"]["value"] == 1.0
    assert (tmp_path / "out" / "metrics.json").is_file()
    assert "lesion DSC" in _run(*arguments).stdout


def test_evaluate_takes_labels_from_a_dataset_json(phantom: Path, tmp_path: Path) -> None:
    dataset_json = tmp_path / "dataset.json"
    dataset_json.write_text(json.dumps({"labels": {"background": 0, "organ": 1, "lesion": 2}}))
    masks = phantom / "test_labels"
    result = _run("evaluate", "-p", masks, "-r", masks, "--dataset-json", dataset_json, "--json")
    assert result.exit_code == 0, result.stderr
    assert _json(result)["segmentation"]["organ"]["dsc"]["value"] == 1.0


def test_fit_head_shows_what_was_chosen_per_task_and_fold(tmp_path: Path) -> None:
    model, _ = write_trained_folder(tmp_path)
    for name in ("raw", "preprocessed"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / f"nnUNet_{name}")
    result = _run("fit-head", model, "--fold", 1, "--workspace", tmp_path)
    assert result.exit_code == 0, result.stderr
    _, grade, age = result.stdout.splitlines()
    assert grade.split()[:2] == ["grade", "1"] and "stage 1" in grade and "macro_f1 1.000  auroc 1.000" in grade
    assert age.split()[:2] == ["age", "1"] and "shape" in age and "mae" in age
    assert (model / "fold_0" / "case_head.json").read_text() == "old case_head.json"
    assert not (tmp_path / "nnUNet_results").exists()


def test_probe_shows_every_block_and_where_the_figure_is(tmp_path: Path) -> None:
    model, workspace = write_trained_folder(tmp_path, num_folds=1)
    table = workspace.preprocessed / "Dataset001_Tiny" / "classification_labels.csv"
    arguments = ("probe", model, "--table", table, "-o", tmp_path / "out")
    result = _run(*arguments)
    assert result.exit_code == 0, result.stderr
    lines = {tuple(line.split()[:3]): line for line in result.stdout.splitlines() if line.startswith(("grade", "age"))}
    assert len(lines) == 2 * 5
    assert "macro_f1 1.000" in lines[("grade", "stage", "1")]
    assert f"probe.png are in {tmp_path / 'out'}" in result.stdout
    assert len(_json(_run(*arguments, "--json"))["rows"]) == 10


def test_fit_head_of_a_folder_that_is_no_model_is_a_named_error(tmp_path: Path) -> None:
    result = _run("fit-head", tmp_path, "--json")
    assert result.exit_code == 1
    assert _json(result)["error"]["code"] == "MODEL"


def test_the_command_runs_as_a_module_for_torchrun() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(nnduet.__file__).parent.parent)}
    command = [sys.executable, "-m", "nnduet.cli", "plugin-path"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("_nnunet_plugin")


def test_export_and_import_write_one_file(model_2d: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "tiny.nnduet"
    result = _run("export", model_2d, bundle, "--fold", "0", "--json")
    assert _json(result)["folds"] == ["0"]
    assert bundle.is_file()
    refused = _run("import", model_2d, tmp_path / "again.nnduet")
    assert refused.exit_code == 1
    assert "MODEL" in refused.stderr and "nnduet export" in refused.stderr


def test_doctor_shows_rows_and_fails_with_1(stand_in: Callable[..., None]) -> None:
    check = SimpleNamespace(name="torch", status="FAIL", detail="not installed")
    diagnosis = SimpleNamespace(checks=(check,), passed=False, to_json=lambda: {"passed": False})
    stand_in("nnduet.doctor", diagnose=Recorder(diagnosis))
    assert _json(_run("doctor", "--json")) == {"passed": False}
    result = _run("doctor")
    assert result.exit_code == 1
    assert "FAIL  torch  not installed" in result.stdout


@pytest.mark.parametrize(("passed", "exit_code"), [(True, 0), (False, 1)])
def test_demo_exits_with_1_when_it_did_not_pass(stand_in: Callable[..., None], passed: bool, exit_code: int) -> None:
    demo = Recorder(_summary(passed=passed))
    stand_in("nnduet.demo", run_demo=demo)
    result = _run("demo", "--output", "out", "--seed", 4, "--json")
    assert result.exit_code == exit_code
    assert _json(result) == {"passed": passed}
    assert (demo.arguments, demo.options["seed"]) == ((Path("out"),), 4)


def test_plugin_path_is_the_folder_in_the_package() -> None:
    assert _run("plugin-path").stdout.strip() == str(Path(nnduet.__file__).resolve().parent / "_nnunet_plugin")


def test_a_wrong_command_line_with_json_ends_with_a_json_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["nnduet", "plan", "--json"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "USAGE"
