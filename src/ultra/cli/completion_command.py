"""`ultra completion`: the script that lets a shell complete the command."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from ultra.cli.commands import COMPLETION_VARIABLE, new_app
from ultra.cli.completion import SHELLS
from ultra.errors import BadCall

__all__ = ["app"]

app = new_app()

# Typer's own takes the words as bash splits them, and bash splits at the colon of provider:model.
_BASH: Final = f"""\
_ultra_completion() {{
    local IFS=$'\\n' words=() word glue= value i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if [[ ${{#words[@]}} -gt 0 && ( $glue || $word == [:=] ) ]]; then
            words[${{#words[@]}}-1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == [:=] ]] && glue=1 || glue=
    done
    COMPREPLY=( $( env COMP_WORDS="${{words[*]}}" COMP_CWORD=$((${{#words[@]}} - 1)) \\
                   {COMPLETION_VARIABLE}=complete_bash "$1" ) )
    value=${{words[${{#words[@]}}-1]}}
    [[ $value == -*=* ]] && value=${{value#*=}}
    if [[ $value == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=( "${{COMPREPLY[@]#"${{value%"${{value##*:}}"}}"}}" )
    fi
}}
complete -o default -F _ultra_completion ultra
"""


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell.")],
) -> None:
    """Print the script by which a shell completes commands, options, models, ensembles and templates.

    bash: add  eval "$(ultra completion bash)"  to ~/.bashrc
    zsh: add  eval "$(ultra completion zsh)"  to ~/.zshrc, behind compinit
    fish: ultra completion fish > ~/.config/fish/completions/ultra.fish
    """
    from typer._completion_shared import get_completion_script  # noqa: PLC0415 - typer has no other name

    if shell not in SHELLS:
        raise BadCall(f"there is no completion for {shell!r}; the shells are: {', '.join(SHELLS)}")
    script = (
        _BASH
        if shell == "bash"
        else get_completion_script(prog_name="ultra", complete_var=COMPLETION_VARIABLE, shell=shell)
    )
    sys.stdout.write(f"{script.strip()}\n")
