"""Who runs the commands of the pages: for each block, by words that it alone has, a test, or why none can."""
# ruff: noqa: E501 - names of tests are long

HERE = "tests/test_docs_run.py::"


class Not(str):
    """Why a block cannot run in a test; its options are parsed all the same."""


HOURS = Not("hours of training on data of our own making, or on data whose licence keeps them out of the repository")
INSTALL = Not("the environment that the tests run in was made so by `make test` (tests/test_envs.py has the lock)")
CONTAINER = Not("no container engine here; tests/test_envs.py has what goes into the container")

RUNS = {
    "README.md": {
        "make demo    #": f"{HERE}test_make_demo_and_the_start_of_the_readme",
        "gigaseg demo --out demo": f"{HERE}test_make_demo_and_the_start_of_the_readme",
        "gigaseg view results\n": f"{HERE}test_the_first_slide",
        "nuclei = geopandas": f"{HERE}test_make_demo_and_the_start_of_the_readme",
        "profiles/slurm  ": "tests/slurm/test_slurm.py::test_a_cohort_through_kill_preemption_and_the_end_of_the_main_process",
        "gigaseg inspect slide.svs": f"{HERE}test_the_steps_by_hand",
    },
    "docs/index.md": {"make demo": f"{HERE}test_make_demo_and_the_start_of_the_readme"},
    "docs/first-slide.md": {
        "python3 -m venv": INSTALL,
        "curl -O": Not("a download; the test makes a slide of that name"),
        "printf": f"{HERE}test_the_first_slide",
        "gpu=1 --config slides=mine.tsv": f"{HERE}test_the_first_slide",
        "gigaseg view mine": f"{HERE}test_the_first_slide",
        "import geopandas": f"{HERE}test_the_first_slide",
        "--configfile mine.yaml": f"{HERE}test_the_first_slide",
    },
    "docs/view.md": {
        "gigaseg view results\n": f"{HERE}test_the_first_slide",
        "ssh -L": Not("another machine; the viewer is started at a port by test_the_first_slide"),
        "--out viewer": f"{HERE}test_the_first_slide",
    },
    "docs/faq.md": {
        "--pixel-size 0.5": f"{HERE}test_the_steps_by_hand",
        "gigaseg doctor\n": [
            "tests/test_doctor.py::test_the_command_works_by_itself",
            f"{HERE}test_make_demo_and_the_start_of_the_readme",
        ],
        "--object-diameter 12": f"{HERE}test_the_steps_by_hand",
        "gigaseg evaluate": f"{HERE}test_the_steps_by_hand",
        "gigaseg status": f"{HERE}test_make_demo_and_the_start_of_the_readme",
        "gpu=1\n": f"{HERE}test_make_demo_and_the_start_of_the_readme",
        "--forcerun": f"{HERE}test_make_demo_and_the_start_of_the_readme",
        "gigaseg view": f"{HERE}test_the_first_slide",
        "table = nuclei.merge": f"{HERE}test_make_demo_and_the_start_of_the_readme",
    },
    "docs/own-model.md": {
        "class Dark": f"{HERE}test_a_model_of_ones_own",
        "pip install -e my_model": f"{HERE}test_a_model_of_ones_own",
        "gigaseg demo --out demo": f"{HERE}test_a_model_of_ones_own",
        "--annotations demo/slide.geojson": f"{HERE}test_a_model_of_ones_own",
    },
    "docs/prompts.md": {
        "gigaseg checkpoints vit_b": "tests/sam/test_downloads.py::test_the_command_prints_the_files_it_fetched",
        "--every-tile": f"{HERE}test_prompts_by_hand",
        "gigaseg propose": "tests/workflow/test_proposing.py::test_points_are_proposed_merged_and_segmented_and_classes_have_the_names_and_colours_of_the_preset",
        "import geopandas": f"{HERE}test_prompts_by_hand",
        "--segmenter prompted": f"{HERE}test_prompts_by_hand",
    },
    "docs/formats.md": dict.fromkeys(
        [
            "import gzip",
            "geopandas.read_file",
            "pandas.read_csv",
            "COCO(",
            "import anndata",
            "ome_zarr",
            "import spatialdata",
        ],
        "tests/export/test_formats_page.py::test_an_example_runs",
    ),
    "docs/buildings.md": {
        "gigaseg inspect": "tests/measure/test_rasters.py::test_the_commands_of_the_page_on_buildings_work"
    },
    "docs/cohorts.md": {
        "snakemake gate --workflow-profile workflow/profiles/local --cores 8 --config slides_dir=/incoming\n": "tests/workflow/test_nightly.py::test_two_nights",
        "gigaseg doctor": "tests/test_doctor.py::test_a_folder_of_slides_stands_for_the_sheet",
    },
    "docs/cluster.md": {
        "tmux new": "tests/slurm/test_slurm.py::test_a_cohort_through_kill_preemption_and_the_end_of_the_main_process",
        "gpu=4": Not("four GPUs; tests/test_gpus.py has who takes which"),
        "kubernetes": Not("a Kubernetes cluster"),
        "docker build": CONTAINER,
    },
    "docs/metrics.md": {
        "gigaseg evaluate": "tests/metrics/test_evaluate.py::test_report_is_a_table_for_people_and_json_for_programs",
        "score_labels": f"{HERE}test_the_examples_in_python",
        "gigaseg average": "tests/metrics/test_average.py::test_each_run_counts_once_and_undefined_figures_are_left_out",
    },
    "docs/accuracy.md": {
        "--rows watershed": "tests/benchmarks/test_accuracy.py::test_other_sets_and_rows_stay_when_one_is_run_again",
        "estimate_diameter": f"{HERE}test_the_examples_in_python",
    },
    "docs/sam.md": {
        "encode(sam": f"{HERE}test_the_examples_in_python",
        "gigaseg checkpoints ": "tests/sam/test_downloads.py::test_the_command_without_names_lists_what_there_is",
        "write_delta(": f"{HERE}test_the_examples_in_python",
        "Backend.open": f"{HERE}test_the_examples_in_python",
    },
    "docs/report.md": {"gigaseg status": f"{HERE}test_make_demo_and_the_start_of_the_readme"},
    "docs/speed.md": {"gigaseg doctor": f"{HERE}test_make_demo_and_the_start_of_the_readme"},
    "docs/stitching.md": {"gigaseg stitch": f"{HERE}test_the_steps_by_hand"},
    "docs/training.md": {
        "torchrun": [
            "tests/train/test_cli.py::test_a_model_is_trained_from_a_folder_and_its_card_states_the_data",
            "tests/train/test_cli.py::test_the_module_runs_from_the_source_tree_without_an_installation",
            "tests/train/centersam/test_protocols.py::test_a_light_detector_is_trained_by_a_line_and_resumed_by_the_same",
            "tests/train/sac/test_protocols.py::test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has",
            "tests/train/densesam/test_protocols.py::test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has",
            "tests/train/cfrsam/test_points_method.py::test_it_is_trained_measured_and_resumed_by_one_line",
            "tests/train/cfrsam/test_method.py::test_the_command_trains_evaluates_and_tells_mistakes",
            "tests/train/persense/test_method.py::test_the_command_trains_and_evaluates",
        ],
        "--optimiser muon": HOURS,
    },
    "docs/centersam.md": {
        "--help ": "tests/train/centersam/test_protocols.py::test_a_light_detector_is_trained_by_a_line_and_resumed_by_the_same",
        "--reference": "tests/metrics/test_evaluate.py::test_reference_figures_appear_on_request_only",
        "--minutes 38": HOURS,
        "--minutes 8.5": HOURS,
        "PAPER=": "tests/train/centersam/test_protocols.py::test_a_published_protocol_is_one_command",
    },
    "docs/sac.md": {
        "--help ": "tests/train/sac/test_method.py::test_the_u_net_first_then_sam_with_the_u_net_as_it_is",
        "training/sac1": HOURS,
        "sac-monuseg": HOURS,
    },
    "docs/densesam.md": {
        "--help ": [
            "tests/train/densesam/test_protocols.py::test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has",
            "tests/train/densesam/test_method.py::test_a_cache_changes_nothing_but_the_time",
            "tests/benchmarks/test_densesam_ablation.py::test_one_command_gives_table_3_and_nothing_is_trained_twice",
            "tests/report/test_features.py::test_an_image_becomes_maps_figures_and_a_picture",
        ],
        "training/densesam1": HOURS,
        "densesam-monuseg": HOURS,
        "aerial_data.py": HOURS,
    },
    "docs/densesam_analysis.md": {
        "gigaseg analyse-features": "tests/report/test_features.py::test_an_image_becomes_maps_figures_and_a_picture"
    },
    "docs/cfrsam.md": {
        "--help ": "tests/train/cfrsam/test_method.py::test_the_command_trains_evaluates_and_tells_mistakes",
        "STAGE2=": HOURS,
        "MONUSEG=": HOURS,
        "two_classes.py": HOURS,
    },
    "docs/persense.md": {
        "gigaseg demo": f"{HERE}test_one_object_is_drawn",
        "shown.yaml --config": "tests/workflow/test_persense.py::test_all_discs_from_one_that_was_drawn_or_shown",
        "DENSITY=": HOURS,
    },
}
"""By page: words of a block -> the test that runs it, or several, one for some of its lines; or `Not` with the reason."""

PROTOCOLS = {
    "docs/sac_protocols.md": "tests/train/sac/test_protocols.py::test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has",
    "docs/densesam_protocols.md": "tests/train/densesam/test_protocols.py::test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has",
    "docs/cfrsam_protocols.md": "tests/train/cfrsam/test_protocols.py::test_a_protocol_trains_and_is_measured_by_the_lines_that_the_page_has",
    "docs/persense_protocols.md": "tests/one_shot/test_protocols.py::test_a_protocol_is_measured_by_the_line_that_the_page_has",
}
"""Pages all of whose blocks a test reads and runs."""
