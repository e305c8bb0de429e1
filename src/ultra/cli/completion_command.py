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
    # What the command gives has an order, and where a value follows, no space; old bashes know neither.
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] && compopt -o nosort 2>/dev/null
    [[ ${{COMPREPLY[*]}} == *[=.] ]] && compopt -o nospace 2>/dev/null
    value=${{words[${{#words[@]}}-1]}}
    [[ $value == -*=* ]] && value=${{value#*=}}
    if [[ $value == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=( "${{COMPREPLY[@]#"${{value%"${{value##*:}}"}}"}}" )
    fi
}}
complete -o default -F _ultra_completion ultra
"""

# Each line that the command gives is a word, a tab and what is told of it. Typer's own scripts let the shell
# sort the words: runs are told with the newest first.
_ZSH: Final = f"""\
#compdef ultra

_ultra_completion() {{
    setopt local_options local_traps
    trap 'return 130' INT QUIT  # in place of zsh's own, which tells of it as of an error
    local -a lines described bare
    local line word told
    lines=( "${{(@f)$(env _TYPER_COMPLETE_ARGS="${{words[1,$CURRENT]}}" {COMPLETION_VARIABLE}=complete_fish \\
                     _TYPER_COMPLETE_FISH_ACTION=get-args ultra 2>/dev/null)}}" )
    for line in "${{lines[@]}}"; do
        word=${{line%%$'\t'*}}
        [[ -z $word ]] && continue
        [[ $line == *$'\t'* ]] && told=:${{line#*$'\t'}} || told=
        described+=( "${{word//:/\\\\:}}$told" )
    done
    if (( ${{#described}} )); then
        [[ $word == *[=.] ]] && bare=(-S '')
        _describe -V 'ultra' described "${{bare[@]}}"
    else
        _files
    fi
}}

compdef _ultra_completion ultra
"""

_FISH: Final = f"""\
function _ultra_completion
    set --local found (env {COMPLETION_VARIABLE}=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \\
        _TYPER_COMPLETE_ARGS=(commandline -cp | string collect) ultra 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command ultra --no-files --keep-order --arguments "(_ultra_completion)"
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell.")],
) -> None:
    """Print the script by which a shell completes commands, options, models, ensembles and templates.

    bash: add  eval "$(ultra completion bash)"  to ~/.bashrc

    zsh: add  eval "$(ultra completion zsh)"  to ~/.zshrc, behind compinit

    fish: ultra completion fish > ~/.config/fish/completions/ultra.fish
    """
    if shell not in SHELLS:
        raise BadCall(f"there is no completion for {shell!r}; the shells are: {', '.join(SHELLS)}")
    sys.stdout.write(f"{_SCRIPTS[shell].strip()}\n")
