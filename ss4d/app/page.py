"""The page of the web app, and what its buttons do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

import gradio as gr

from ss4d.app.jobs import SERVED, Job, JobError, Jobs, Limits, Settings
from ss4d.app.sentences import FULL
from ss4d.video import VideoError

EXAMPLE = Path(__file__).parent.parent.parent / "assets" / "demo.mp4"
# Fonts of the visitor's system: nothing is fetched from elsewhere.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
STYLE = ".preview img {max-width: 100%} .result iframe {width: 100%; height: 75vh; min-height: 480px; border: 0}"
PROGRESS = gr.Progress()  # stands for that of a run


def build_page(jobs: Jobs) -> gr.Blocks:
    limits, defaults = jobs.limits, Settings()
    with gr.Blocks(title="SS4D", analytics_enabled=False) as page:
        gr.Markdown(introduction(limits))
        with gr.Row():
            with gr.Column():
                video = gr.Video(label="Clip", sources=["upload"], height=320, elem_id="clip")
                gr.Examples([[str(EXAMPLE)]], [video], preload=False, example_labels=["a figure that jumps"])
            with gr.Column():
                count = min(defaults.frames, limits.frames)
                frames = gr.Slider(1, limits.frames, count, step=1, label="Frames", elem_id="frames")
                steps = gr.Slider(1, limits.steps, defaults.steps, step=1, label="Steps of sampling", elem_id="steps")
                refine = gr.Checkbox(defaults.refine, label="Refine: align the result with the clip's pixels; slower")
                seed = gr.Number(defaults.seed, precision=0, label="Seed", minimum=0, maximum=2**31 - 1)
                with gr.Row():
                    generate = gr.Button("Generate", variant="primary", interactive=False, elem_id="generate")
                    cancel = gr.Button("Cancel", elem_id="cancel")
        preview = gr.HTML(elem_classes="preview", elem_id="preview")
        result = gr.HTML(elem_classes="result", elem_id="result", min_height=80)

        def take(upload: str | None, count: float, request: gr.Request) -> tuple[str, dict, str]:
            """A clip was uploaded, chosen or removed."""
            session = session_of(request)
            if upload is None:
                jobs.remove(session)
                return "", gr.update(interactive=False), ""
            shown, ready = attempt(lambda: show_preview(jobs.add(session, jobs.upload(upload), int(count))))
            return shown, gr.update(interactive=ready), ""

        def look_again(count: float, request: gr.Request) -> str:
            """Another number of frames was chosen."""
            session = session_of(request)
            return attempt(lambda: show_preview(jobs.look(session, int(count))))[0]

        def run(
            count: float,
            number: float,
            fit: bool,
            seed: float | None,
            request: gr.Request,
            progress: gr.Progress = PROGRESS,
        ) -> str:
            settings = Settings(int(count), int(number), fit, defaults.seed if seed is None else int(seed))

            def tell(share: float, stage: str) -> None:
                progress(share, desc=stage)

            progress(0, desc="loading the model")
            return attempt(lambda: show_result(jobs.generate(session_of(request), settings, tell)))[0]

        def wait(request: gr.Request) -> None:
            jobs.wait(session_of(request))

        def stop(request: gr.Request) -> str:
            jobs.cancel(session_of(request))
            return show_failure("Cancelled.")

        def leave(request: gr.Request) -> None:
            jobs.remove(session_of(request))

        video.change(take, [video, frames], [preview, generate, result], api_visibility="private")
        frames.change(look_again, frames, preview, trigger_mode="always_last", api_visibility="private")
        generate.click(wait, None, None, queue=False, api_visibility="private")
        running = generate.click(
            run, [frames, steps, refine, seed], result, concurrency_limit=1, api_visibility="private"
        )
        cancel.click(stop, None, result, cancels=running, queue=False, api_visibility="private")
        page.unload(leave)
    return page.queue(max_size=limits.waiting, api_open=False)


def introduction(limits: Limits) -> str:
    return f"""# SS4D: a video of one moving object becomes 4D Gaussians

Upload a clip of one object, before a background of one colour or with transparency: **at most {limits.megabytes} MB
and {limits.seconds} seconds** (mp4, mov, webm ...), of which up to {limits.frames} frames are taken. One job runs
at a time, others wait in a queue. Clip and result are deleted when you close this page."""


def session_of(request: gr.Request) -> str:
    """The name of an open page."""
    return request.session_hash or ""


def attempt(work: Callable[[], str]) -> tuple[str, bool]:
    """What a visitor is shown, and whether the work was done."""
    try:
        return work(), True
    except (JobError, VideoError) as error:
        return show_failure(str(error)), False
    except OSError as error:
        print(f"a request failed: {error}", file=sys.stderr, flush=True)
        return show_failure(FULL), False


def show_failure(sentence: str) -> str:
    return f'<p role="alert">{escape(sentence)}</p>'


def show_preview(job: Job) -> str:
    """The preview, with the job's notes; a new address each time, so that the browser does not show the former one."""
    notes = "".join(f"<p>Note: {escape(note)}</p>" for note in job.notes)
    alt = "The frames that are taken, with their crop, above the cut-outs that the model sees"
    return f'<p>{alt}:</p><img src="results/{job.token}/preview.png?{job.used}" alt="{alt}">{notes}'


def show_result(job: Job) -> str:
    """The player, and links to take the result away."""
    place, name = f"results/{job.token}", escape(job.clip.stem)
    everything = f'<a href="{place}/result.zip" download="{name}.zip">Download everything</a>'
    packed = (job.folder / SERVED["result.zip"]).is_file()
    download = f"{everything} (PLY files, videos, player) or" if packed else "Download"
    return (
        f'<iframe src="{place}/player.html?{job.used}" title="Player" sandbox="allow-scripts allow-downloads"'
        ' allow="fullscreen"></iframe>'
        f'<p>{download} <a href="{place}/player.html" download="{name}.html">the player alone</a>, '
        "which opens in any browser.</p>"
    )
